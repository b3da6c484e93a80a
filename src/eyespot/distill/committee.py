"""Committee: several frozen teachers that look at the same pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyespot.encoders import Encoder
from eyespot.encoders.frozen import load_teacher_model
from eyespot.encoders.naming import short_names
from eyespot.features import Features
from eyespot.pictures import as_unit_floats, resize_pictures


class Committee(nn.Module):
    """Frozen teachers of any stride, width and native size.

    Args:
        teachers: encoders by name.
        max_grid: teacher maps with more rows or columns than this are averaged down to it (ours; saves memory where a
            teacher's stride is much finer than the student's). None keeps them.

    Raises:
        ValueError: no teachers.
    """

    def __init__(self, teachers: Mapping[str, Encoder], max_grid: int | None = None) -> None:
        super().__init__()
        if not teachers:
            raise ValueError("a committee needs at least one teacher")
        self.teachers = nn.ModuleDict(teachers)
        self.max_grid = max_grid
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Committee:
        """Teachers stay in eval mode, whatever the task around them does."""
        return super().train(False)

    def items(self) -> Iterable[tuple[str, Encoder]]:
        """(name, teacher) pairs."""
        return self.teachers.items()  # type: ignore[return-value]

    @torch.no_grad()
    def forward(self, batch: Mapping[str, Any], size: int | None = None) -> dict[str, Features]:
        """Features of every teacher for the batch's pictures, in float32.

        Args:
            batch: `images` [B, 3, S, S], uint8 or floats in [0, 1].
            size: side in pixels for teachers that take any, rounded to their stride; None is each teacher's default.
        """
        images = as_unit_floats(batch["images"])
        return {name: self.look(teacher, images, size) for name, teacher in self.items()}

    def look(self, teacher: Encoder, images: Tensor, size: int | None = None) -> Features:
        """One teacher's features [B, C], [B, D, h, w] of pictures in [0, 1] of any size."""
        features = teacher(resize_pictures(images, teacher.fitting_size(size))).float()
        return self._limited(features)

    def _limited(self, features: Features) -> Features:
        grid = features.grid
        if self.max_grid is None or max(grid) <= self.max_grid:
            return features
        smaller = (min(grid[0], self.max_grid), min(grid[1], self.max_grid))
        return Features(features.summary, F.adaptive_avg_pool2d(features.patches, smaller))


def load_committee(specs: Iterable[str], max_grid: int | None = None) -> Committee:
    """Loads teachers by spec, under short unique names."""
    specs = list(specs)
    return Committee(
        {name: load_teacher_model(spec) for name, spec in zip(short_names(specs), specs, strict=True)}, max_grid
    )
