"""Key points as maps: a bump around each."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

WIDTH = 0.02
"""Standard deviation of a bump as a share of the picture's longer side (ours; at least a pixel)."""


def point_maps(points: Iterable[tuple[int, float, float]], channels: int, size: tuple[int, int]) -> Tensor:
    """Maps of key points, one for each type.

    Args:
        points: (type, x, y) each, x and y in pixels; those outside the picture are left out.
        channels: how many types there are.
        size: (H, W) of the picture.

    Returns:
        float32 [channels, H, W]: Gaussian bumps, exactly 1 at the pixel a point lies in; where bumps of one type meet,
        the larger value.
    """
    height, width = size
    sigma = max(1.0, WIDTH * max(size))
    maps = torch.zeros(channels, height, width)
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    for kind, x, y in points:
        row, column = int(y // 1), int(x // 1)
        if 0 <= row < height and 0 <= column < width:
            distance = ((rows - row) ** 2 + (columns - column) ** 2).float()
            maps[kind] = torch.maximum(maps[kind], torch.exp(-distance / (2 * sigma**2)))
    return maps


def mirrored_types(names: tuple[str, ...]) -> list[int] | None:
    """Which type each type becomes in a mirrored picture: "left_eye" becomes "right_eye". None if none changes."""
    others = [_other_side(name) for name in names]
    order = [names.index(other) if other in names else number for number, other in enumerate(others)]
    return None if order == list(range(len(names))) else order


def _other_side(name: str) -> str:
    for side, other in (("left", "right"), ("right", "left")):
        if name.startswith(side):
            return other + name.removeprefix(side)
    return name
