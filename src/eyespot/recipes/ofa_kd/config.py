"""What there is to decide about an OFA-KD run."""

from __future__ import annotations

from dataclasses import field

from pydantic.dataclasses import dataclass

from eyespot.config import STRICT, OneOrMore
from eyespot.runs.classifier_config import ClassifierConfig, ClassifierStudents


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OfaKdStudents(ClassifierStudents):
    """The compact classifiers that the recipe makes: every model by every method, from one pass of the teacher."""

    method: OneOrMore[str] = field(default_factory=lambda: ["ofa"])
    """How the teacher tells: ofa (the method), or what it is compared with: kd, bkd, dkd, dist, fitnet, cc, rkd, crd;
    none learns from labels alone."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OfaKdConfig(ClassifierConfig):
    """Everything there is to decide about an OFA-KD run."""

    student: OfaKdStudents
    """The students."""
