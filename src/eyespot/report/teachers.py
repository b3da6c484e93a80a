"""What the report and the model card say about encoders and those that they were learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from eyespot.encoders.base import Encoder
from eyespot.encoders.licenses import Verdict, verdict
from eyespot.report.labels import short_labels


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


@dataclass(frozen=True)
class LicenceBox:
    """Models and their licences.

    Attributes:
        title: whose they are; empty if there is one box only.
        models: one line each.
        judged: whether a student was learnt from them, whose commercial use they decide.
        labels: what the page calls them, if not by short forms of their names.
    """

    title: str
    models: Sequence[Teacher]
    judged: bool = True
    labels: Sequence[str] = ()

    @property
    def rows(self) -> list[tuple[str, Teacher]]:
        """Per model its label and its facts."""
        short = short_labels(model["name"] for model in self.models)
        return list(zip(self.labels or [short[model["name"]] for model in self.models], self.models, strict=True))

    @property
    def verdict(self) -> Verdict | None:
        """Whether the student may be used commercially; None if there is none."""
        return verdict(model["licence"] for model in self.models) if self.judged and self.models else None
