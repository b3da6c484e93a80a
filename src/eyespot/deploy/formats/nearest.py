"""Nearest-neighbour enlargement in operators that mean the same everywhere, for formats whose own one does not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def enlarge(images: Tensor, size: Sequence[int] | None, factors: Sequence[float] | None) -> Tensor:
    """`aten.upsample_nearest2d.vec` by picking rows and columns, unless all factors are whole.

    From 3 to 7 rows, torch picks 0 0 0 1 1 2 2. litert-torch 0.10 writes an operator that looks at the middle of pixels
    and picks 0 0 1 1 1 2 2. Core ML's operator rounds the product of size and factor down, so that 3 * 2.3333333 may
    give 6 rows. All agree where factors are whole, and GhostNetV3 at 224x224 has some that are not.

    Args:
        images: [B, C, h, w].
        size: (height, width) afterwards, or None.
        factors: by which both grow if `size` is None.

    Returns:
        [B, C, height, width], or NotImplemented if the operator may stay.
    """
    old = images.shape[2:]
    if size is None:
        assert factors is not None
        size = [int(before * factor) for before, factor in zip(old, factors, strict=True)]
    steps = [_step(*axis) for axis in zip(old, size, factors or (None, None), strict=True)]
    if all((1 / step).is_integer() for step in steps):
        return NotImplemented
    for axis, (before, after, step) in enumerate(zip(old, size, steps, strict=True), start=2):
        picked = (torch.arange(after) * step).floor().clamp(max=before - 1).int()
        images = images.index_select(axis, picked)
    return images


def _step(before: int, after: int, factor: float | None) -> float:
    """Pixels before per pixel after. Where the size stays or doubles, torch does not look at the factor."""
    return before / after if factor is None or after in (before, 2 * before) else 1 / factor


REWRITES = {torch.ops.aten.upsample_nearest2d.vec: enlarge}
"""For `ExportedProgram.run_decompositions`."""
