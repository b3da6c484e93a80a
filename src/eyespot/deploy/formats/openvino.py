"""OpenVINO's own format (an .xml file and its weights in a .bin file), in float32 or, through NNCF, in int8."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eyespot.deploy.formats.int8 import check_layers, check_pictures, first_layers, is_transformer
from eyespot.deploy.graph import Graph
from eyespot.encoders.runtimes.openvino import FACTS, import_openvino

MOST_TO_COMPARE = 8
"""Batches on which two ways to quantise are compared."""

SMOOTH, NOT_SMOOTH = 0.95, -1.0
"""Strengths of SmoothQuant: NNCF's default, and what switches it off."""

_LAYERS = ("MatMul", "Convolution", "GroupConvolution")


def write(graph: Graph, file: Path) -> None:
    """Writes a network with input `images`, the graph's outputs by name and facts in its section `eyespot`.

    Weights are float32, not float16, to which OpenVINO would round them silently by default.

    Raises:
        ImportError: openvino is missing.
        ValueError: OpenVINO has no operator for a part of it. So it is with position embeddings that are resized in the
            network (ViTs of open size without rotary embeddings).
    """
    network, _ = _converted(graph)
    _save(network, file)


def write_int8(
    graph: Graph,
    file: Path,
    calibration: Sequence[Tensor],
    keep_float: Collection[str] = (),
    weights_only: bool = False,
) -> None:
    """Writes a network whose layers compute in int8.

    Weights get one scale per output channel, activations one per tensor, symmetric, set by NNCF from what it sees in
    the calibration pictures. The layers that read the picture stay in float (ours): they are cheap, and cost more
    accuracy than all others together. In networks with layer norms or attention, the matrix products of attention are
    in int8 as well, all else stays in float; there are two candidates for these, with and without NNCF's SmoothQuant,
    which moves outliers from activations into weights, and the one nearer to float on the first pictures is written
    (ours: which one that is differs between models).

    Arguments are those of `Int8Writer`. `weights_only` leaves it to OpenVINO how to compute: where the processor has
    products of int8, it rounds activations as they come. What `write` refuses is refused here too.
    """
    nncf = _import_nncf()
    if not weights_only:
        check_pictures(calibration)
    network, layers = _converted(graph)
    check_layers(keep_float, layers)
    kept = set(keep_float) | first_layers(graph)
    names = [name for layer in sorted(kept) for name in layers.get(layer, [])]
    ignored = nncf.IgnoredScope(names=names) if names else None
    with _silence():
        if weights_only:
            quantised = nncf.compress_weights(network, ignored_scope=ignored)
        elif is_transformer(graph):
            candidates = [_quantised(nncf, network, calibration, ignored, smooth) for smooth in (SMOOTH, NOT_SMOOTH)]
            quantised = _nearest(network, candidates, calibration[:MOST_TO_COMPARE])
        else:
            quantised = _quantised(nncf, network, calibration, ignored)
    _save(quantised, file)


def _converted(graph: Graph) -> tuple[Any, dict[str, list[str]]]:
    """The network, and for each layer the names of the operators that use its weight."""
    openvino = import_openvino()
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

    open_shape = graph.batch is None or graph.size is None
    try:
        with _silence():
            decoder = TorchFXPythonDecoder.from_exported_program(graph.program, dynamic_shapes=open_shape)
            network = openvino.convert_model(decoder)
    except openvino.frontend.OpConversionFailure as error:
        lacking = str(error).rpartition("operations: ")[2].strip()
        hint = "; perhaps there is with a fixed size and batch" if open_shape else ""
        raise ValueError(f"OpenVINO has no operator for {lacking}{hint}") from error
    images = network.inputs[0]
    images.get_node().set_partial_shape(openvino.PartialShape([graph.batch or -1, 3, *(graph.size or (-1, -1))]))
    network.validate_nodes_and_infer_types()
    images.tensor.set_names({"images"})
    for output, name in zip(network.outputs, graph.names, strict=True):
        output.tensor.set_names({name})
    for name, value in graph.facts.items():
        network.set_rt_info(value, [FACTS, name])
    return network, _layers(network, decoder.pt_module)


def _layers(network: Any, traced: torch.fx.GraphModule) -> dict[str, list[str]]:
    """Layers by the names of their weights. An operator's name begins with that of the traced node it stands for."""
    operators: dict[str, list[str]] = {}
    for operator in network.get_ops():
        if operator.get_type_name() in _LAYERS:
            name = operator.get_friendly_name()
            operators.setdefault(name.partition("/")[0], []).append(name)
    layers: dict[str, list[str]] = {}
    for node in traced.graph.nodes:
        weight = node.args[1] if node.name in operators and len(node.args) > 1 else None
        if isinstance(weight, torch.fx.Node) and weight.op == "get_attr":
            layers.setdefault(str(weight.target).removesuffix(".weight"), []).extend(operators[node.name])
    return layers


def _quantised(
    nncf: Any, network: Any, calibration: Sequence[Tensor], ignored: Any, smooth: float | None = None
) -> Any:
    """One way to quantise; `smooth` is the strength of SmoothQuant, None for networks that have no need of it."""
    details = nncf.AdvancedQuantizationParameters()
    if smooth is not None:
        details.smooth_quant_alphas = nncf.AdvancedSmoothQuantParameters(matmul=smooth)
    return nncf.quantize(
        network.clone(),
        nncf.Dataset([batch.numpy() for batch in calibration]),
        preset=nncf.QuantizationPreset.PERFORMANCE,
        model_type=None if smooth is None else nncf.ModelType.TRANSFORMER,
        subset_size=len(calibration),
        fast_bias_correction=smooth is not None,
        ignored_scope=ignored,
        advanced_parameters=details,
    )


def _nearest(network: Any, candidates: Sequence[Any], pictures: Sequence[Tensor]) -> Any:
    """The candidate whose outputs are nearest to the network's own, all outputs counting the same."""
    wanted = _outputs(network, pictures)
    errors = []
    for candidate in candidates:
        pairs = zip(_outputs(candidate, pictures), wanted, strict=True)
        errors.append(sum(float(np.square(found - true).sum() / np.square(true).sum()) for found, true in pairs))
    return candidates[int(np.argmin(errors))]


def _outputs(network: Any, pictures: Sequence[Tensor]) -> list[np.ndarray[Any, Any]]:
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = import_openvino().compile_model(network, "CPU", settings)
    return [value for batch in pictures for value in compiled([batch.numpy()]).to_tuple()]


def _save(network: Any, file: Path) -> None:
    import_openvino().save_model(network, file, compress_to_fp16=False)


def _import_nncf() -> Any:
    with _silence():  # its import has to say something about other frameworks
        nncf = import_openvino("nncf")
    nncf.set_log_level(logging.ERROR)
    return nncf


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Swallows progress bars and warnings of OpenVINO and NNCF, which have no switch and are not about the user."""
    handlers, disabled = logging.root.handlers[:], logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)
        logging.root.handlers[:] = handlers  # logging.warning() has added one that prints everybody's messages
