"""Everything a classifier student can be told by a teacher, under one interface.

`make_method(name, ...)` builds any of `METHODS`; `Method.forward` says what it costs a student to differ. Methods on
logits are here, those on features in `feature_hints`, those with exits from inner stages in `exits`.
"""

from __future__ import annotations

from torch import Tensor

from eyespot.distill.classes import logit_losses
from eyespot.distill.classes.config import MethodSettings
from eyespot.distill.classes.crd import ContrastiveKD
from eyespot.distill.classes.exits import OneForAll
from eyespot.distill.classes.feature_hints import CorrelationCongruence, FitNet, RelationalKD
from eyespot.distill.classes.outputs import ClassifierOutput, Method, OutputShape, output_shape, require_same_classes
from eyespot.specs import lookup

__all__ = [
    "METHODS",
    "ClassifierOutput",
    "Method",
    "MethodSettings",
    "OutputShape",
    "make_method",
    "method_class",
    "output_shape",
]


class LabelsAlone(Method):
    """No terms: the student learns from hard labels alone."""

    teacher_logits = False

    def losses(
        self, student: ClassifierOutput, teacher: ClassifierOutput, target: Tensor, picture: Tensor
    ) -> dict[str, Tensor]:
        """Nothing."""
        return {}


class LogitMethod(Method):
    """What speaks of logits only.

    Raises:
        ValueError: student and teacher know different numbers of classes.
    """

    def __init__(self, settings: MethodSettings, student: OutputShape, teacher: OutputShape, pictures: int) -> None:
        super().__init__(settings, student, teacher, pictures)
        require_same_classes(student, teacher)


class PlainKD(LogitMethod):
    """KL divergence of softened logits ("kd")."""

    def losses(
        self, student: ClassifierOutput, teacher: ClassifierOutput, target: Tensor, picture: Tensor
    ) -> dict[str, Tensor]:
        """`kd`, see `logit_losses.kd`."""
        return {"kd": self.settings.weight * logit_losses.kd(student.logits, teacher.logits, self.settings.temperature)}


class BinaryKD(LogitMethod):
    """Every class a yes or no ("bkd")."""

    def losses(
        self, student: ClassifierOutput, teacher: ClassifierOutput, target: Tensor, picture: Tensor
    ) -> dict[str, Tensor]:
        """`bkd`, see `logit_losses.bkd`."""
        return {"bkd": self.settings.weight * logit_losses.bkd(student.logits, teacher.logits)}


class DecoupledKD(LogitMethod):
    """The target class, and the rest, apart ("dkd")."""

    def losses(
        self, student: ClassifierOutput, teacher: ClassifierOutput, target: Tensor, picture: Tensor
    ) -> dict[str, Tensor]:
        """`dkd`, see `logit_losses.dkd`."""
        own = self.settings
        loss = logit_losses.dkd(student.logits, teacher.logits, target, own.dkd_alpha, own.dkd_beta, own.temperature)
        return {"dkd": own.weight * loss}


class Dist(LogitMethod):
    """Correlation instead of equality ("dist")."""

    def losses(
        self, student: ClassifierOutput, teacher: ClassifierOutput, target: Tensor, picture: Tensor
    ) -> dict[str, Tensor]:
        """`dist`, see `logit_losses.dist`."""
        own = self.settings
        loss = logit_losses.dist(student.logits, teacher.logits, own.dist_beta, own.dist_gamma, own.dist_tau)
        return {"dist": own.weight * loss}


METHODS: dict[str, type[Method]] = {
    "none": LabelsAlone,
    "kd": PlainKD,
    "bkd": BinaryKD,
    "dkd": DecoupledKD,
    "dist": Dist,
    "ofa": OneForAll,
    "fitnet": FitNet,
    "cc": CorrelationCongruence,
    "rkd": RelationalKD,
    "crd": ContrastiveKD,
}
"""The methods by name. All are built from (settings, student shape, teacher shape, number of pictures)."""


def method_class(name: str) -> type[Method]:
    """The class of a method, which says whether it wants taps before it is built.

    Raises:
        ValueError: no such method; names the nearest.
    """
    return lookup(METHODS, name, "method")


def make_method(
    name: str, settings: MethodSettings, student: OutputShape, teacher: OutputShape, pictures: int
) -> Method:
    """Builds a method.

    Args:
        name: one of `METHODS`.
        settings: hyper-parameters.
        student: see `Method`.
        teacher: see `Method`.
        pictures: see `Method`.

    Raises:
        ValueError: no such method (names the nearest), or these two cannot be brought together by it (says why).
    """
    return method_class(name)(settings, student, teacher, pictures)
