"""What there is to decide about a GhostNetV3 run."""

from __future__ import annotations

from dataclasses import field

from pydantic.dataclasses import dataclass

from eyespot.config import STRICT, OneOrMore
from eyespot.runs.classifier_config import ClassifierConfig, ClassifierStudents


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GhostNetV3Students(ClassifierStudents):
    """The compact classifiers that the recipe makes: every model by every method, from one pass of the teacher."""

    method: OneOrMore[str] = field(default_factory=lambda: ["kd"])
    """How the teacher tells: kd (the method), or what it is compared with: bkd, dkd, dist, ofa, fitnet, cc, rkd, crd;
    none learns from labels alone."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GhostNetV3Config(ClassifierConfig):
    """Everything there is to decide about a GhostNetV3 run."""

    student: GhostNetV3Students
    """The students."""
    fuse: bool = True
    """Write the students in the form in which they run, without branches and batch norms."""
