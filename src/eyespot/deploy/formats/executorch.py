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
from eyespot.deploy.graph import Graph
from eyespot.encoders.executorch_source import METADATA_METHOD

aten = torch.ops.aten
_LINEAR, _CONV, _ADD, _RELU = aten.linear.default, aten.conv2d.default, aten.add.Tensor, aten.relu.default


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
    """Writes a .pte file whose linear layers and convolutions multiply 8-bit integers.

    Weights are rounded per output channel. Inputs of linear layers are rounded row by row with the range that each
    row has at run time, which costs next to nothing and needs no calibration; their outputs stay float. Inputs
    and outputs of convolutions are rounded with the ranges found in `calibration`, as are sums of such outputs.

    Args:
        graph: the encoder.
        file: what to write.
        calibration: batches of pictures that fit the graph.
        keep_float: layers that are not rounded, by name.
        weights_only: refused: XNNPACK's kernels for 8-bit weights and float activations are out of ExecuTorch's reach.

    Raises:
        ImportError: ExecuTorch or torchao is missing.
        ValueError: batch or size of the graph are open, no calibration pictures, or `weights_only`.
    """
    if weights_only:
        raise ValueError(
            "executorch has no int8 for weights only: what ExecuTorch does not hand to XNNPACK as a whole it computes "
            "many times slower than in float32; leave weights_only away (linear layers then round their inputs row "
            "by row at run time)"
        )
    if not calibration:
        raise ValueError("int8 for executorch needs calibration pictures")
    _refuse_open(graph)
    with _quiet():
        program = in_forms(graph.program, graph.example())
        _lower(_quantised(program, graph.example(), calibration, frozenset(keep_float)), graph, file)


def _refuse_open(graph: Graph) -> None:
    if graph.batch is None or graph.size is None:
        raise ValueError(
            "an ExecuTorch file has a fixed size and batch, because XNNPACK's slices and reshapes have; export one file "
            "per size"
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
    program: ExportedProgram, example: Tensor, calibration: Sequence[Tensor], keep_float: frozenset[str]
) -> ExportedProgram:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_filter_function(lambda node: _is_rounded(node, keep_float))
    by_row = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
    by_calibration = get_symmetric_quantization_config(is_per_channel=True)
    for operator, config in ((_LINEAR, by_row), (_CONV, by_calibration), (_ADD, by_calibration)):
        quantizer.set_operator_type(operator, config)
    observed = prepare_pt2e(program.module(check_guards=False), quantizer)
    for images in calibration:
        observed(images)
    return torch.export.export(convert_pt2e(observed), (example,), strict=False)


def _is_rounded(node: fx.Node, keep_float: frozenset[str]) -> bool:
    """Whether an operator computes in int8: layers with weights, and sums of what comes out of such convolutions.

    Not the sums along which a transformer carries its tokens from block to block: there a few channels are so large
    that 8 bits leave nothing for the others.
    """
    if node.target in (_LINEAR, _CONV):
        name = str(node.args[1].target)  # type: ignore[union-attr]
        return name.endswith(".weight") and name.removesuffix(".weight") not in keep_float
    if node.target is _ADD:
        return all(_is_rounded_map(source, keep_float) for source in node.args)
    return True


def _is_rounded_map(node: Any, keep_float: frozenset[str]) -> bool:
    if isinstance(node, fx.Node) and node.target is _RELU:
        node = node.args[0]
    return isinstance(node, fx.Node) and node.target in (_CONV, _ADD) and _is_rounded(node, keep_float)


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
