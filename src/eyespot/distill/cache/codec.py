"""Features as bytes and back: how one row of a cache looks, in three precisions, with or without a projection."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eyespot.distill.cache.config import StoreKind
from eyespot.distill.cache.projection import Projection
from eyespot.features import Features

LEVELS = 255
"""Steps between the smallest and the largest value of a channel in int8."""

_ALIGNMENT = 8


@dataclass(frozen=True)
class Field:
    """One named array in a record: its type, its shape per picture, and its first byte."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def stop(self) -> int:
        """The byte after its last."""
        return self.start + math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class RowLayout:
    """The record of one row: summary and patches one after the other, so that a row is one read.

    Attributes:
        store: how numbers are kept.
        summary_dim: C.
        patch_shape: (K, h, w), K being the teacher's channels or the rank of a projection.
    """

    store: StoreKind
    summary_dim: int
    patch_shape: tuple[int, int, int]

    @property
    def fields(self) -> dict[str, Field]:
        """The arrays of a record by name, widest type first, so that each begins at a multiple of its item size."""
        half = torch.float16 if self.store == "float16" else torch.bfloat16
        shapes: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
            "summary": (half, (self.summary_dim,)),
            "patches": (half, self.patch_shape),
        }
        if self.store == "int8":
            ends = (torch.float32, self.patch_shape[:1])
            shapes = {"scale": ends, "offset": ends, **shapes, "patches": (torch.uint8, self.patch_shape)}
        fields: dict[str, Field] = {}
        start = 0
        for name, (dtype, shape) in shapes.items():
            fields[name] = Field(dtype, shape, start)
            start = fields[name].stop
        return fields

    @property
    def record_bytes(self) -> int:
        """Bytes per row: the arrays, filled up to a multiple of eight."""
        return -(-self.fields["patches"].stop // _ALIGNMENT) * _ALIGNMENT

    def as_json(self) -> dict[str, Any]:
        """The layout for people and other programs; `from_json` reads it back."""
        fields = {
            name: {"dtype": str(field.dtype).removeprefix("torch."), "shape": list(field.shape), "start": field.start}
            for name, field in self.fields.items()
        }
        return {"record_bytes": self.record_bytes, "fields": fields}

    @classmethod
    def from_json(cls, description: Mapping[str, Any]) -> RowLayout:
        """The layout that gave a description, `setting.store` included."""
        fields = description["fields"]
        channels, height, width = fields["patches"]["shape"]
        return cls(description["setting"]["store"], fields["summary"]["shape"][0], (channels, height, width))


class Codec:
    """Turns features into records and back.

    Args:
        layout: of a record.
        projection: the patches' basis; None keeps every channel.
        teacher: whose features these are, for messages.
    """

    def __init__(self, layout: RowLayout, projection: Projection | None, teacher: str) -> None:
        self.layout = layout
        self._projection = projection
        self._teacher = teacher

    @property
    def projection(self) -> Projection | None:
        """The patches' basis, if there is one."""
        return self._projection

    def encode(self, features: Features) -> Tensor:
        """Features as records, on their device.

        Args:
            features: [B, C] and [B, D, h, w].

        Returns:
            uint8 [B, record_bytes].

        Raises:
            ValueError: features of another shape, or NaN, infinite or beyond the stored type.
        """
        with torch.autocast(features.patches.device.type, enabled=False):
            arrays = self._rounded(features.float())
        records = torch.zeros(
            len(features), self.layout.record_bytes, dtype=torch.uint8, device=features.summary.device
        )
        for name, field in self.layout.fields.items():
            array = arrays[name]
            if array.shape[1:] != field.shape:
                raise ValueError(
                    f"{self._teacher} gives {name} {tuple(array.shape[1:])}; the cache holds {field.shape}"
                )
            if field.dtype.is_floating_point and not bool(array.isfinite().all()):
                raise ValueError(f"{self._teacher} gives features that are NaN, infinite or beyond {self.layout.store}")
            records[:, field.start : field.stop] = array.flatten(1).contiguous().view(torch.uint8)
        return records

    def decode(self, records: Tensor) -> Features:
        """Records uint8 [B, record_bytes] as features in float32, in the teacher's own width, on their device."""
        arrays = {
            name: records[:, field.start : field.stop].view(field.dtype).unflatten(1, field.shape)
            for name, field in self.layout.fields.items()
        }
        patches = arrays["patches"].float()
        if self.layout.store == "int8":
            patches = patches.mul_(arrays["scale"][..., None, None]).add_(arrays["offset"][..., None, None])
        if self._projection is not None:
            if self._projection.mean.device != records.device:
                self._projection = self._projection.to(records.device)
            with torch.autocast(records.device.type, enabled=False):
                patches = self._projection.restore(patches)
        return Features(arrays["summary"].float(), patches)

    def _rounded(self, features: Features) -> dict[str, Tensor]:
        """The arrays of a record in the types in which they are kept."""
        patches = features.patches
        if self._projection is not None:
            patches = self._projection.to(patches.device).project(patches)
        fields = self.layout.fields
        summary = features.summary.to(fields["summary"].dtype)
        if self.layout.store != "int8":
            return {"summary": summary, "patches": patches.to(fields["patches"].dtype)}
        low, high = patches.amin((2, 3)), patches.amax((2, 3))
        scale = (high - low) / LEVELS
        # A constant channel has no step; its offset says all.
        step = scale.clamp(min=torch.finfo(torch.float32).tiny)
        levels = ((patches - low[..., None, None]) / step[..., None, None]).round().clamp(0, LEVELS)
        return {"scale": scale, "offset": low, "summary": summary, "patches": levels.to(torch.uint8)}
