"""ExecuTorch with XNNPACK: phones (Android, iOS) and any other ARM or x86 processor."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from eyespot.deploy.formats.executorch_forms import in_forms
from eyespot.deploy.formats.int8 import check_layers, check_pictures, first_layers, is_transformer
from eyespot.deploy.graph import Graph
from eyespot.encoders.runtimes.executorch import METADATA_METHOD

aten = torch.ops.aten
_LINEAR, _CONV, _ADD, _CAT = aten.linear.default, aten.conv2d.default, aten.add.Tensor, aten.cat.default
_SAME_RANGE = {
    *(aten.relu.default, aten.max_pool2d.default, aten.reshape.default, aten.permute.default, aten.transpose.int),
    *(aten.slice.Tensor, aten.mean.dim),
}
"""What XNNPACK computes in int8 with the scale of its input, as its quantiser has it."""


def write(graph: Graph, file: Path) -> None:
    """Writes a .pte file: float32, everything that XNNPACK has a kernel for handed to it.

    The method `forward` takes pictures and gives the graph's outputs in their order; the method `metadata` gives their
    names and the facts as a JSON string.

    Raises:
        ImportError: ExecuTorch is missing.
        ValueError: batch or size of the graph are open.
    """
    _refuse_open(graph)
    with _quiet():
        _lower(in_forms(graph.program, graph.example()), graph, file)


def write_int8(
    graph: Graph,
    file: Path,
    calibration: Sequence[Tensor],
    keep_float: Collection[str] = (),
    weights_only: bool = False,
) -> None:
    """Writes a .pte file whose layers multiply 8-bit integers.

    Weights are rounded per output channel. What linear layers read is rounded row by row with the range that each row
    has at run time, which costs little, needs no calibration and suits the outliers of transformers; what they give is
    float. What convolutions read and give, and sums and joints of what they give, are rounded with the ranges found in
    `calibration`. The convolutions of networks with layer norms or attention (patch embeddings, ConvNeXt's depthwise
    ones) stay in float, as do the layers that read the picture (ours: they are cheap, and cost the most accuracy).

    Arguments are those of `Int8Writer`. `weights_only` is refused: XNNPACK's kernels for 8-bit weights and float
    activations are out of ExecuTorch's reach. So is a graph whose batch or size is open.
    """
    if weights_only:
        raise ValueError(
            "executorch has no int8 for weights only: ExecuTorch does not hand such layers to XNNPACK, and its own "
            "kernels are many times slower than float32; full int8 rounds what linear layers read row by row, at a "
            "small loss"
        )
    check_pictures(calibration)
    check_layers(keep_float, graph.layers.values())
    _refuse_open(graph)
    with _quiet():
        program = in_forms(graph.program, graph.example())
        rounded = _layers_to_round(graph) - set(keep_float)
        _lower(_quantised(program, graph.example(), calibration, rounded), graph, file)


def _layers_to_round(graph: Graph) -> set[str]:
    types = (_LINEAR,) if is_transformer(graph) else (_LINEAR, _CONV)
    layers = {
        graph.layers[node.name]
        for node in graph.program.graph.nodes
        if node.target in types and node.name in graph.layers
    }
    return layers - first_layers(graph)


def _refuse_open(graph: Graph) -> None:
    if graph.batch is None or graph.size is None:
        raise ValueError(
            "an ExecuTorch file has a fixed size and batch, because XNNPACK's slices and reshapes have; export one "
            "file per size"
        )


def _lower(program: ExportedProgram, graph: Graph, file: Path) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    facts = {"outputs": graph.names, "facts": graph.facts}
    lowered = to_edge_transform_and_lower(
        program,
        partitioner=[XnnpackPartitioner()],
        constant_methods={METADATA_METHOD: json.dumps(facts)},
    )
    with file.open("wb") as stream:
        lowered.to_executorch().write_to_file(stream)


@torch.no_grad()
def _quantised(
    program: ExportedProgram, example: Tensor, calibration: Sequence[Tensor], rounded: Collection[str]
) -> ExportedProgram:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation
    from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

    quantizer = XNNPACKQuantizer().set_filter_function(lambda node: _is_rounded(node, rounded))
    by_row = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
    by_calibration = get_symmetric_quantization_config(is_per_channel=True)
    quantizer.set_operator_type(_LINEAR, by_row)
    for operator in (_CONV, _ADD, _CAT):
        quantizer.set_operator_type(operator, by_calibration)
    module = program.module(check_guards=False)
    for node in module.graph.nodes:
        if node.target is _CAT and not _is_rounded(node, rounded):  # the quantiser does not ask the filter for these
            node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(_annotated=True)
    observed = prepare_pt2e(module, quantizer)
    for images in calibration:
        observed(images)
    converted = convert_pt2e(observed)
    _drop_unused(converted)
    return torch.export.export(converted, (example,), strict=False)


def _is_rounded(node: fx.Node, rounded: Collection[str]) -> bool:
    """Whether an operator computes in int8: some layers; sums and joints of what comes out of such convolutions.

    Joints because XNNPACK needs one scale for all parts, and refuses the file if the quantiser was not told so.
    """
    if node.target in (_LINEAR, _CONV):
        return str(node.args[1].target).removesuffix(".weight") in rounded  # type: ignore[union-attr]
    if node.target in (_ADD, _CAT):
        sources = node.args if node.target is _ADD else node.args[0]
        return all(_gives_int8(source, rounded) for source in sources)  # type: ignore[union-attr]
    return True


def _gives_int8(node: Any, rounded: Collection[str]) -> bool:
    while isinstance(node, fx.Node) and node.target in _SAME_RANGE:
        node = node.args[0]
    return isinstance(node, fx.Node) and node.target in (_CONV, _ADD, _CAT) and _is_rounded(node, rounded)


def _drop_unused(module: fx.GraphModule) -> None:
    """Forgets the float weights that int8 ones stand for now: ExecuTorch writes every buffer, used or not."""
    used = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    for name in {name for name, _ in module.named_buffers()} - used:
        owner, _, last = name.rpartition(".")
        delattr(module.get_submodule(owner), last)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the many lines that ExecuTorch and torchao say at every export; what they raise is not touched."""
    level = logging.root.manager.disable
    try:
        logging.disable(logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ModuleNotFoundError as error:
        raise ImportError("ExecuTorch export needs more libraries: pip install 'eyespot[executorch]'") from error
    finally:
        logging.disable(level)
