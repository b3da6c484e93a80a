"""ONNX in int8: the graph of `onnx.write` with pairs of QuantizeLinear and DequantizeLinear (QDQ), or int8 weights."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from eyespot.deploy.formats.int8 import check_layers, check_pictures, first_layers, is_transformer
from eyespot.deploy.formats.onnx import LAYER_OPERATORS, write
from eyespot.deploy.graph import Graph
from eyespot.encoders.runtimes.onnx import ROUNDED


def write_int8(
    graph: Graph,
    file: Path,
    calibration: Sequence[Tensor],
    keep_float: Collection[str] = (),
    weights_only: bool = False,
) -> None:
    """Writes an ONNX file whose layers compute in int8 where the runtime can (ONNX Runtime does).

    Weights are symmetric int8 with one scale per output channel, activations uint8 with one scale and zero point per
    tensor, from the smallest to the largest value seen in the calibration pictures. What is in float and why (ours,
    measured with ONNX Runtime on x86):

    - the layers that read the picture: they are cheap, and cost more accuracy than all others together;
    - grouped convolutions that are not depthwise (FastViT's downsampling), ten times as slow in int8;
    - in networks with layer norms or attention, all but the layers: eight bits do not hold attention weights. The
      layers' outputs stay in float too, which needs fewer conversions. In all other networks everything is quantised.

    Processors without VNNI (Intel before 2019) may saturate in 16-bit sums of such products; test on those.

    Arguments are those of `Int8Writer`. With `weights_only` the file has a quarter of the size and standard operators.
    By itself ONNX Runtime turns its weights back into float in every run, for which CNNs may take twice as long; with
    the session's entry `session.disable_quant_qdq` "1", once, when it loads the file. `load_encoder` sets it, because
    such files carry a note in their metadata.
    """
    try:
        import onnxruntime.quantization as quantization
    except ImportError as error:
        raise ImportError("ONNX in int8 needs more libraries: pip install 'eyespot[onnx]'") from error
    import onnx

    if not weights_only:
        check_pictures(calibration)
    with tempfile.TemporaryDirectory() as folder:
        plain, quantised = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        write(graph, plain)
        model = onnx.load(plain)
        layers = {node.name for node in model.graph.node if node.op_type in LAYER_OPERATORS} & set(
            graph.layers.values()
        )
        check_layers(keep_float, layers)
        chosen = layers - set(keep_float) - first_layers(graph)
        if weights_only:
            _round_weights(model, chosen)
        else:
            chosen -= _slow_in_int8(model)
            if is_transformer(graph):
                _keep_biases_apart(model, chosen)
            onnx.save(model, plain, save_as_external_data=_is_large(graph))
            _quantise(quantization, plain, quantised, calibration, chosen, is_transformer(graph))
            model = onnx.load(quantised)
            _protect(model, layers - chosen)
    onnx.helper.set_model_props(model, {**graph.facts, **({ROUNDED: "weights"} if weights_only else {})})
    model.producer_name = "eyespot"
    onnx.save(model, file)


def _is_large(graph: Graph) -> bool:
    return sum(value.nbytes for value in graph.program.state_dict.values()) > 1.9e9


def _slow_in_int8(model: Any) -> set[str]:
    """Grouped convolutions with several output channels per group, for which ONNX Runtime has no good int8 kernel."""
    channels = {constant.name: constant.dims[0] for constant in model.graph.initializer if constant.dims}
    found = set()
    for node in model.graph.node:
        groups = next((entry.i for entry in node.attribute if entry.name == "group"), 1)
        if node.op_type == "Conv" and 1 < groups < channels.get(node.input[1], 0):
            found.add(node.name)
    return found


def _quantise(
    quantization: Any, plain: Path, quantised: Path, calibration: Sequence[Tensor], chosen: set[str], layers_only: bool
) -> None:
    import onnx

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch.numpy()}

    nodes = onnx.load(plain, load_external_data=False).graph.node
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it asks for a preparation that this graph does not need
    try:
        quantization.quantize_static(
            plain,
            quantised,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(LAYER_OPERATORS) if layers_only else None,
            nodes_to_exclude=[
                node.name for node in nodes if node.op_type in LAYER_OPERATORS and node.name not in chosen
            ],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul"] if layers_only else []},
        )
    finally:
        logging.disable(disabled)


def _keep_biases_apart(model: Any, chosen: set[str]) -> None:
    """Gives the biases behind matrix products the shape [1, 1, N].

    ONNX Runtime makes a product and a bias [N] one operator before it looks for int8, and has no int8 for the result.
    """
    from onnx import numpy_helper

    constants = {constant.name: constant for constant in model.graph.initializer}
    products = {node.output[0] for node in model.graph.node if node.op_type == "MatMul" and node.name in chosen}
    for node in model.graph.node:
        if node.op_type != "Add" or not products & set(node.input):
            continue
        for place, name in enumerate(node.input):
            if name in constants and len(constants[name].dims) == 1:
                node.input[place] = f"{name}_apart"
                if node.input[place] not in constants:
                    bias = numpy_helper.to_array(constants[name])[None, None]
                    constants[node.input[place]] = numpy_helper.from_array(bias, node.input[place])
                    model.graph.initializer.append(constants[node.input[place]])
    _drop_unused(model)


def _protect(model: Any, kept: set[str]) -> None:
    """Puts an operator that does nothing (Clip without bounds) before each float layer that reads int8 values.

    ONNX Runtime takes a float convolution between DequantizeLinear and QuantizeLinear for a forgotten one, and rounds
    its weights when it loads the file, with one scale for all channels.
    """
    from onnx import helper

    rounded = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    nodes = []
    for node in model.graph.node:
        if node.name in kept and node.op_type in LAYER_OPERATORS and node.input[0] in rounded:
            apart = f"{node.output[0]}_input"
            nodes.append(helper.make_node("Clip", [node.input[0]], [apart], name=f"{node.name}_float"))
            node.input[0] = apart
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _round_weights(model: Any, chosen: set[str]) -> None:
    """Stores weights as symmetric int8 with a scale per output channel, and a DequantizeLinear before their use."""
    from onnx import helper, numpy_helper

    constants = {constant.name: constant for constant in model.graph.initializer}
    nodes, done = [], set()
    for node in model.graph.node:
        name = node.input[1] if node.name in chosen and node.op_type in LAYER_OPERATORS else ""
        if name in constants:
            weight = numpy_helper.to_array(constants[name])
            transposed = any(entry.name == "transB" and entry.i for entry in node.attribute)
            axis = 0 if node.op_type == "Conv" or transposed else weight.ndim - 1
            if name not in done:
                values, scales = _rounded(weight, axis)
                model.graph.initializer.append(numpy_helper.from_array(values, f"{name}_int8"))
                model.graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scale"))
                inputs = [f"{name}_int8", f"{name}_scale"]
                nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}_float"], axis=axis))
                done.add(name)
            node.input[1] = f"{name}_float"
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _drop_unused(model)


def _rounded(weight: np.ndarray[Any, Any], axis: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(int8 values, float32 scales [channels]) of a weight."""
    others = tuple(place for place in range(weight.ndim) if place != axis)
    largest = np.abs(weight).max(others, keepdims=True)
    scales = np.maximum(largest / 127, np.finfo(np.float32).tiny).astype(np.float32)
    return np.round(weight / scales).astype(np.int8), scales.reshape(-1)


def _drop_unused(model: Any) -> None:
    used = {name for node in model.graph.node for name in node.input}
    kept = [constant for constant in model.graph.initializer if constant.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
