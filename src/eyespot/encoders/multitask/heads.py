"""The head of a dense task, the same for every task (SAK, paper notes (b))."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TaskHead(nn.Module):
    """Four maps of one grid -> one map of the picture's size.

    Each map is reduced to a quarter of its width, resized to a quarter of the picture's size and put beside the others;
    a 3x3 convolution with batch norm and GELU and a 1x1 convolution follow. All resizing is bilinear without aligned
    corners. Layers start as PyTorch starts them (ours; the notes are silent on heads).

    Args:
        width: D of the maps.
        channels: outputs per pixel.
        levels: how many maps.
    """

    def __init__(self, width: int, channels: int, levels: int = 4) -> None:
        super().__init__()
        quarter = width // 4
        self.reduce = nn.ModuleList(nn.Conv2d(width, quarter, 1) for _ in range(levels))
        self.fuse = nn.Sequential(nn.Conv2d(levels * quarter, width, 3, padding=1), nn.BatchNorm2d(width), nn.GELU())
        self.predict = nn.Conv2d(width, channels, 1)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """[B, channels, H, W].

        Args:
            maps: [B, D, h, w] for each level.
            size: (H, W) in pixels.
        """
        quarter = (size[0] // 4, size[1] // 4)
        reduced = [_resized(layer(level), quarter) for layer, level in zip(self.reduce, maps, strict=True)]
        return _resized(self.predict(self.fuse(torch.cat(reduced, 1))), size)


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
