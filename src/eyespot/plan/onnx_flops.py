"""Operations of an ONNX graph, counted from the shapes of its matrix products and convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

Shapes = dict[str, tuple[int, ...]]


def onnx_forward_flops(path: Path, size: tuple[int, int]) -> int:
    """Operations of one picture; a multiply-accumulate is two, as in torch's counter, and element-wise work is none.

    Counted are Conv, ConvTranspose, Gemm, MatMul and Einsum-free attention, and their int8 relatives: everything that
    torch's counter counts for the model that such a file usually came from.

    Args:
        path: the file.
        size: (height, width) of the picture in pixels.

    Raises:
        ImportError: the onnx package is missing.
        ValueError: the shapes inside the graph cannot be told; names the first operation.
    """
    return _counted(path, path.stat().st_mtime_ns, size)


@lru_cache(maxsize=256)
def _counted(path: Path, written: int, size: tuple[int, int]) -> int:
    """`onnx_forward_flops` of the file as it was written at that time (ns)."""
    onnx, model = _load(path)
    _fix_input(model.graph.input[0], size)
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    known = _shapes(graph)
    return sum(_node_flops(node, known, path) for node in graph.node)


def onnx_parameters(path: Path) -> int:
    """Numbers that are stored in an ONNX file, constants included.

    Raises:
        ImportError: the onnx package is missing.
    """
    return sum(math.prod(entry.dims) for entry in _load(path)[1].graph.initializer)


def _load(path: Path) -> tuple[Any, Any]:
    """The onnx package, and the graph without the weights that lie beside it."""
    try:
        import onnx
    except ImportError as error:
        raise ImportError("to count an ONNX file's operations: pip install 'eyespot[onnx]'") from error
    return onnx, onnx.load(str(path), load_external_data=False)


def _fix_input(entry: Any, size: tuple[int, int]) -> None:
    """Gives the picture input, channels first or last, its size, so that every shape behind it follows."""
    dimensions = entry.type.tensor_type.shape.dim
    last = dimensions[3].dim_value == 3 and dimensions[1].dim_value != 3
    for dimension, value in zip(dimensions, (1, *size, 3) if last else (1, 3, *size), strict=True):
        dimension.dim_value = value


def _shapes(graph: Any) -> Shapes:
    found: Shapes = {entry.name: tuple(entry.dims) for entry in graph.initializer}
    for entry in (*graph.input, *graph.value_info, *graph.output):
        dimensions = entry.type.tensor_type.shape.dim
        if all(dimension.HasField("dim_value") for dimension in dimensions):
            found[entry.name] = tuple(dimension.dim_value for dimension in dimensions)
    return found


def _node_flops(node: Any, known: Shapes, path: Path) -> int:
    count = _COUNTERS.get(node.op_type)
    if count is None:
        return 0
    try:
        return count(node, known)
    except KeyError as error:
        raise ValueError(
            f"{path}: the shape of {error} at {node.op_type} {node.name or node.output[0]!r} cannot be told, so its "
            "operations cannot be counted; export the model with a fixed picture size"
        ) from None


def _convolution(node: Any, known: Shapes) -> int:
    """2 x outputs x (inputs per group x kernel)."""
    weight = known[node.input[3] if node.op_type == "QLinearConv" else node.input[1]]
    return 2 * math.prod(known[node.output[0]]) * math.prod(weight[1:])


def _transposed_convolution(node: Any, known: Shapes) -> int:
    """2 x inputs x (outputs per group x kernel)."""
    return 2 * math.prod(known[node.input[0]]) * math.prod(known[node.input[1]][1:])


def _product(node: Any, known: Shapes) -> int:
    """2 x outputs x inner."""
    return 2 * math.prod(known[node.output[0]]) * known[node.input[0]][-1]


def _gemm(node: Any, known: Shapes) -> int:
    """2 x outputs x inner, where the left side may be transposed."""
    transposed = any(entry.name == "transA" and entry.i for entry in node.attribute)
    return 2 * math.prod(known[node.output[0]]) * known[node.input[0]][0 if transposed else -1]


_COUNTERS: dict[str, Callable[[Any, Shapes], int]] = {
    "Conv": _convolution,
    "ConvInteger": _convolution,
    "QLinearConv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "MatMul": _product,
    "MatMulInteger": _product,
    "QLinearMatMul": _product,
    "Gemm": _gemm,
}
