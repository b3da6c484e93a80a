"""What there is to decide about a VanillaKD run."""

from __future__ import annotations

from dataclasses import field

from pydantic.dataclasses import dataclass

from eyespot.config import STRICT, OneOrMore
from eyespot.distill.classes.config import LabelConfig
from eyespot.runs.classifier_config import ClassifierConfig, ClassifierStudents


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VanillaKdStudents(ClassifierStudents):
    """The compact classifiers that the recipe makes: every model by every method, from one pass of the teacher."""

    method: OneOrMore[str] = field(default_factory=lambda: ["kd"])
    """How the teacher tells: kd (the method), or what it is compared with: bkd, dkd, dist, ofa, fitnet, cc, rkd, crd;
    none learns from labels alone."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VanillaKdConfig(ClassifierConfig):
    """Everything there is to decide about a VanillaKD run."""

    student: VanillaKdStudents
    """The students."""
    label: LabelConfig = field(default_factory=lambda: LabelConfig(loss="bce"))
    """What the labels say."""
