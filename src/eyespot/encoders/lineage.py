"""The facts of models and of those that they were learnt from: what reports, cards and licence verdicts rest on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from torch import nn

from eyespot.encoders.base import Encoder
from eyespot.encoders.naming import has_random_weights


class Teacher(TypedDict):
    """One teacher, ready for JSON.

    Attributes:
        name: its spec.
        licence: identifier as its source states it, None if it states none.
        summary_dim: C, width of the summary.
        patch_dim: D, width of the patch map.
        stride: input pixels per patch.
        parameters: number of weights; 0 if the source does not show them (an ONNX file).
    """

    name: str
    licence: str | None
    summary_dim: int
    patch_dim: int
    stride: int
    parameters: int


def describe(encoder: Encoder) -> Teacher:
    """The facts of an encoder."""
    return Teacher(
        name=encoder.name,
        licence=encoder.license,
        summary_dim=encoder.summary_dim,
        patch_dim=encoder.patch_dim,
        stride=encoder.stride,
        parameters=sum(weight.numel() for weight in encoder.parameters()),
    )


def lineage(teachers: Iterable[nn.Module], student: Encoder) -> list[Teacher]:
    """All that a student of these teachers learns from, directly or through a proxy, with their licences.

    Weights that the student starts from count as well, unless they are random; those of unknown licence, too.

    Args:
        teachers: encoders.
        student: before it is trained.
    """
    known: dict[str, Teacher] = {entry["name"]: entry for entry in student.lineage}
    if not student.lineage and not has_random_weights(student.name):
        known[student.name] = describe(student)
    for teacher in teachers:
        assert isinstance(teacher, Encoder)
        entries = teacher.lineage or [describe(teacher)]
        known |= {entry["name"]: entry for entry in entries}
    return list(known.values())
