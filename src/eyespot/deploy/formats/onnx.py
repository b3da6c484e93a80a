"""ONNX, through torch's exporter; runs in ONNX Runtime on every kind of device, and is what many converters read."""

from __future__ import annotations

import logging
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from eyespot.deploy.graph import Graph

OPSET = 20
"""The oldest with GELU as one operator. Attention (23) is newer than many runtimes: it is left as matrix products."""


LAYER_OPERATORS = ("Conv", "Gemm", "MatMul")


def write(graph: Graph, file: Path) -> None:
    """Writes an ONNX file: float32, input `images`, the graph's outputs by name, facts as metadata.

    The node that uses a layer's weight is named after the layer. A model of more than 2 GB gets its weights in a second
    file beside it, because ONNX files cannot be larger.

    Raises:
        ImportError: onnx or onnxscript is missing.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError("ONNX export needs more libraries: pip install 'eyespot[onnx]'") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        exported = torch.onnx.export(
            graph.program,
            (graph.example(),),
            input_names=["images"],
            output_names=list(graph.names),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert exported is not None
    model = exported.model_proto
    _name_layers(model, graph.layers)
    _name_sides(model)
    _forget_where_it_was_made(model)
    onnx.helper.set_model_props(model, graph.facts)
    model.producer_name = "eyespot"
    large = sum(value.nbytes for value in graph.program.state_dict.values()) > 1.9e9
    onnx.save(model, file, save_as_external_data=large, location=f"{file.name}.data")


def _name_layers(model: Any, layers: dict[str, str]) -> None:
    """Gives the nodes that use weights the names of their layers; the exporter notes which traced node each is from.

    Of a layer that is used more than once, the first: names of nodes are unique.
    """
    named: set[str] = set()
    for node in model.graph.node:
        notes = {note.key: note.value for note in node.metadata_props}
        traced = re.match(r"%(\w+)", notes.get("pkg.torch.onnx.fx_node", ""))
        layer = layers.get(traced[1]) if traced and node.op_type in LAYER_OPERATORS else None
        if layer is not None and layer not in named:
            node.name = layer
            named.add(layer)


def _name_sides(model: Any) -> None:
    """Calls what is open by its name, instead of a symbol of the tracer's."""
    sides = model.graph.input[0].type.tensor_type.shape.dim
    names = {0: "batch", 2: "height", 3: "width"}
    symbols = {sides[place].dim_param: name for place, name in names.items() if sides[place].dim_param}
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    for side in (side for value in values for side in value.type.tensor_type.shape.dim):
        for symbol, name in symbols.items():
            if side.dim_param:  # setting it makes a fixed side an open one
                side.dim_param = re.sub(rf"\b{symbol}\b", name, side.dim_param)


def _forget_where_it_was_made(model: Any) -> None:
    """Drops the exporter's notes: stack traces with the paths of this machine, as large as a small model."""
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output, model.graph):
        del part.metadata_props[:]
        part.doc_string = ""
