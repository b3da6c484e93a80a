"""Dense tasks: what a multi-task model says of every pixel, and how its label maps are written.

Data sets say which of these they label, models have a head for each, losses and metrics follow from the kind.

Label maps have the size of their picture:

| kind | tensor | no label |
|---|---|---|
| classes, saliency, boundary | uint8 [H, W], a class; 0 or 1 for the latter two | `IGNORE` |
| normals | float32 [3, H, W], unit vectors, x right, y down, z forward | (0, 0, 0) |
| depth | float32 [H, W], metres | 0 |
| keypoints | float32 [C, H, W], a bump around every labelled point, 1 at the point itself | - |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["classes", "saliency", "boundary", "normals", "depth", "keypoints"]

IGNORE = 255
"""Class of pixels that count for nothing."""

WEIGHTS: dict[Kind, float] = {
    "classes": 1.0,
    "saliency": 5.0,
    "boundary": 50.0,
    "normals": 10.0,
    "depth": 1.0,
    "keypoints": 10.0,
}
"""Weights of the losses in their sum (SAK's released code; human parts have 2; key points ours)."""


@dataclass(frozen=True)
class DenseTask:
    """One task.

    Attributes:
        kind: what the label maps hold; decides loss and metric.
        channels: outputs per pixel: the classes, 2 for saliency, 1 for boundary and depth, 3 for normals, one per type
            of key point.
        weight: of its loss in the sum.
        names: of the classes or key points in order, where known.
        max_distance: boundary only: how far from a true boundary a found one may lie, as a share of the picture's
            diagonal (0.0075 PASCAL-Context, 0.011 NYUD-v2).
    """

    kind: Kind
    channels: int
    weight: float
    names: tuple[str, ...] = ()
    max_distance: float = 0.0075


def dense_task(kind: Kind, channels: int | None = None, **more: object) -> DenseTask:
    """A task with what follows from its kind.

    Args:
        kind: see `DenseTask`.
        channels: classes or types of key points; the other kinds know theirs.
        more: other fields of `DenseTask`.
    """
    known = {"saliency": 2, "boundary": 1, "normals": 3, "depth": 1}
    count = known.get(kind, channels)
    if count is None or channels not in (None, count):
        raise ValueError(f"a task of kind {kind!r} has {known.get(kind, 'a given number of')} channels, not {channels}")
    settings: dict[str, object] = {"weight": WEIGHTS[kind], **more}
    return DenseTask(kind, count, **settings)  # type: ignore[arg-type]
