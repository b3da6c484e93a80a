"""Features: the one thing that flows through the house."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Features:
    """What an encoder sees in a batch of pictures.

    Attributes:
        summary: [B, C], one vector per picture (class token or pooled map).
        patches: [B, D, h, w], the dense feature map, row-major, origin top left. C and D may differ.
        logits: [B, K], the outputs of a class head before the softmax; None for an encoder without one.
    """

    summary: Tensor
    patches: Tensor
    logits: Tensor | None = None

    def __post_init__(self) -> None:
        if self.summary.ndim != 2 or self.patches.ndim != 4:
            raise ValueError(
                "Features need a summary [B, C] and patches [B, D, h, w]; "
                f"got {tuple(self.summary.shape)} and {tuple(self.patches.shape)}"
            )
        # not len(): it would fix the batch size of an exported graph
        if self.summary.shape[0] != self.patches.shape[0]:
            raise ValueError(f"summary holds {len(self.summary)} pictures, patches {len(self.patches)}")
        if self.logits is not None and (self.logits.ndim != 2 or self.logits.shape[0] != self.summary.shape[0]):
            raise ValueError(
                f"logits must be [{self.summary.shape[0]}, K], one row per picture; got {tuple(self.logits.shape)}"
            )

    def __len__(self) -> int:
        return len(self.summary)

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the patch map."""
        return (self.patches.shape[2], self.patches.shape[3])

    @property
    def tokens(self) -> Tensor:
        """The patches as a sequence, [B, h*w, D], row-major."""
        return self.patches.flatten(2).transpose(1, 2)

    def resized(self, grid: tuple[int, int]) -> Features:
        """The same features with the patch map resized to `grid` (rows, columns) by bicubic interpolation."""
        return Features(self.summary, resize_map(self.patches, grid), self.logits)

    def float(self) -> Features:
        """The same features in float32."""
        return self._each(lambda tensor: tensor.float())

    def to(self, device: torch.device | str) -> Features:
        """The same features on another device."""
        return self._each(lambda tensor: tensor.to(device))

    def __getitem__(self, which: slice | Tensor) -> Features:
        """A selection of the pictures."""
        return self._each(lambda tensor: tensor[which])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Features:
        logits = None if self.logits is None else change(self.logits)
        return Features(change(self.summary), change(self.patches), logits)


torch.export.register_dataclass(Features)  # so that an exported encoder gives Features as well


def resize_map(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resizes a feature map [B, D, h, w] to `grid` by bicubic interpolation, in float32, back in its own dtype.

    No antialiasing and no aligned corners: PyTorch's defaults, the reading of EUPE (A.5) that needs no further
    assumption. A map that already has the grid is returned as it is.
    """
    if patches.shape[2:] == grid:
        return patches
    if patches.device.type != "cpu":
        return F.interpolate(patches.float(), size=grid, mode="bicubic", align_corners=False).to(patches.dtype)
    # Two small matrix products: on a CPU several times as fast as torch's own resizing, above all backwards.
    rows, columns = (torch.tensor(_bicubic(old, new)) for old, new in zip(patches.shape[2:], grid, strict=True))
    with torch.autocast("cpu", enabled=False):
        return (rows @ patches.float() @ columns.T).to(patches.dtype)


@lru_cache(256)
def _bicubic(old: int, new: int) -> np.ndarray:
    """The matrix float32 [new, old] by which PyTorch's bicubic interpolation takes `old` values to `new`."""
    place = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(place).astype(int) - 1
    matrix = np.zeros((new, old))
    for neighbour in range(4):
        distance = np.abs(place - first - neighbour)
        near = (1.25 * distance - 2.25) * distance**2 + 1  # Keys' kernel with a = -0.75
        far = ((-0.75 * distance + 3.75) * distance - 6) * distance + 3
        index = np.clip(first + neighbour, 0, old - 1)
        np.add.at(matrix, (np.arange(new), index), np.where(distance <= 1, near, far))
    return matrix.astype(np.float32)
