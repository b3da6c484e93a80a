"""The box of a page that lists models with their licences, and the verdict on what was learnt from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eyespot.encoders.licenses import Verdict, verdict
from eyespot.encoders.lineage import Teacher
from eyespot.report.exhibits.labels import short_labels


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
