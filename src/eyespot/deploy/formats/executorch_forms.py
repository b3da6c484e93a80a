"""What XNNPACK can take: operators of the graph, said in those that it has kernels for.

ExecuTorch hands to XNNPACK what XNNPACK knows and computes the rest with its own kernels, on one thread and some of
them one element after another; each such operator also cuts the graph in two. Every function here stands for an ATen
operator that XNNPACK refuses, or refuses in the form that torch.export gives it. All are exact up to the order of
additions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.export import ExportedProgram

aten = torch.ops.aten


def layer_norm(
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = False,
) -> Tensor:
    """Layer norm from means and products: XNNPACK has none, and 25 of them cut a ViT-T into 26 pieces."""
    if len(shape) != 1:
        return F.layer_norm(x, shape, weight, bias, eps)
    centred = x - _mean(x)
    normed = centred * torch.rsqrt(_mean(centred * centred) + torch.full((1,), eps))
    normed = normed if weight is None else normed * weight
    return normed if bias is None else normed + bias


def _mean(x: Tensor) -> Tensor:
    """Mean over the last dimension as a matrix product: XNNPACK averages over height and width only."""
    return F.linear(x, torch.full((1, x.shape[-1]), 1 / x.shape[-1]))


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention as two batched products of three dimensions.

    torch's own form expands keys and values, scales by a number (XNNPACK multiplies tensors only) and looks for rows
    that are masked altogether, a dozen portable operators per block.
    """
    plain_mask = attn_mask is None or attn_mask.is_floating_point()
    if is_causal or enable_gqa or not plain_mask:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    scaled = query * torch.full((1,), scale or 1 / math.sqrt(query.shape[-1]))
    products = matmul(scaled, key.transpose(-1, -2))
    weights = torch.softmax(products if attn_mask is None else products + attn_mask, -1)
    return matmul(weights, value)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """A product of stacks of matrices without the copies that torch's own form expands the operands into."""
    if a.ndim < 3 or a.shape[:-2] != b.shape[:-2]:
        return a @ b
    product = torch.bmm(a.reshape(-1, *a.shape[-2:]), b.reshape(-1, *b.shape[-2:]))
    return product.reshape(*a.shape[:-1], b.shape[-1])


def unbind(x: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """Slices: XNNPACK has no operator with several outputs."""
    return tuple(select(x, dim, index) for index in range(x.shape[dim]))


def select(x: Tensor, dim: int, index: int) -> Tensor:
    """A slice and a reshape: XNNPACK has no selection."""
    dim, index = dim % x.ndim, index % x.shape[dim]
    return aten.slice.Tensor(x, dim, index, index + 1).reshape(*x.shape[:dim], *x.shape[dim + 1 :])


def split(x: Tensor, size: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Slices, see `unbind`."""
    length = x.shape[dim]
    return tuple(aten.slice.Tensor(x, dim, start, min(start + size, length)) for start in range(0, length, size))


def chunk(x: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Slices, see `unbind`."""
    return split(x, -(-x.shape[dim] // chunks), dim)


def split_with_sizes(x: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Slices, see `unbind`."""
    ends = [sum(split_sizes[: index + 1]) for index in range(len(split_sizes))]
    return tuple(aten.slice.Tensor(x, dim, end - size, end) for end, size in zip(ends, split_sizes, strict=True))


def adaptive_avg_pool2d(x: Tensor, output_size: Sequence[int]) -> Tensor:
    """The mean of the whole map, if that is what is wanted: torch's own form of it rearranges memory afterwards."""
    if tuple(output_size) == (1, 1):
        return x.mean((2, 3), keepdim=True)
    return aten.adaptive_avg_pool2d.default(x, output_size)


def upsample_nearest2d(
    x: Tensor, output_size: Sequence[int] | None, scale_factors: Sequence[float] | None = None
) -> Tensor:
    """Nearest-neighbour resizing as two products with matrices of zeros and ones, for which XNNPACK has kernels."""
    rows, columns = (torch.arange(float(side)) for side in x.shape[2:])
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None]
    sources = aten.upsample_nearest2d.vec(grid, output_size, scale_factors)[0]
    wide = F.linear(x, _ones_where_equal(sources[1, 0], columns))
    return F.linear(wide.transpose(2, 3), _ones_where_equal(sources[0, :, 0], rows)).transpose(2, 3)


def _ones_where_equal(a: Tensor, b: Tensor) -> Tensor:
    """[A, B] of zeros and ones from whole numbers [A] and [B], in float throughout."""
    return 1 - (a[:, None] - b).abs().clamp(max=1)


def pad(x: Tensor, widths: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Padding by joining constants: XNNPACK has padding, but an int8 file with it before a pooling cannot be loaded."""
    if mode != "constant" or min(widths) < 0:
        return F.pad(x, list(widths), mode, value)
    for number, width in enumerate(widths):
        if width:
            dim = x.ndim - 1 - number // 2
            shape = [width if axis == dim else side for axis, side in enumerate(x.shape)]
            edge = torch.full(shape, value or 0.0)
            x = torch.cat([x, edge] if number % 2 else [edge, x], dim)
    return x


FORMS: dict[Any, Callable[..., Any]] = {
    aten.layer_norm.default: layer_norm,
    aten.scaled_dot_product_attention.default: scaled_dot_product_attention,
    aten.matmul.default: matmul,
    aten.unbind.int: unbind,
    aten.select.int: select,
    aten.chunk.default: chunk,
    aten.split.Tensor: split,
    aten.split_with_sizes.default: split_with_sizes,
    aten.pad.default: pad,
    aten.adaptive_avg_pool2d.default: adaptive_avg_pool2d,
    aten.upsample_nearest2d.vec: upsample_nearest2d,
}


def in_forms(program: ExportedProgram, example: Tensor) -> ExportedProgram:
    """The program with all operators of `FORMS` said in their other form."""
    from executorch.exir.passes.constant_prop_pass import constant_prop_pass

    module = program.module()
    for node in module.graph.nodes:
        node.target = FORMS.get(node.target, node.target)
    module.recompile()
    with torch.no_grad():
        return constant_prop_pass(torch.export.export(module, (example,), strict=False))
