"""What there is to decide about the distillation of classifiers: labels, mixing, every method's hyper-parameters."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from eyespot.config import STRICT, Probability

OfaForm = Literal["code", "paper"]
Weight = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Stage = Annotated[int, Field(ge=1, le=4)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MethodSettings:
    """How a method tells. A setting named after one method is read by that method alone."""

    weight: Weight = 1.0
    """Weight of what the method says, beside the hard-label loss. With ofa: of the term on the student's own logits."""
    temperature: Positive = 1.0
    """Temperature of the softmaxes in kd, dkd and ofa; 1 in VanillaKD and OFA-KD."""
    stages: tuple[Stage, ...] = Field(default=(1, 2, 3, 4), min_length=1)
    """Stages of the student that are told something by ofa and fitnet, 1 to 4, ascending."""

    dkd_alpha: Weight = 1.0
    """dkd: weight of "the target class or not"."""
    dkd_beta: Weight = 2.0
    """dkd: weight of the distribution over the other classes."""

    dist_beta: Weight = 1.0
    """dist: weight of the correlation over the classes of each picture."""
    dist_gamma: Weight = 1.0
    """dist: weight of the correlation over the batch for each class."""
    dist_tau: Positive = 1.0
    """dist: temperature."""

    ofa_form: OfaForm = "code"
    """ofa: the loss as in the released code or as in the paper; see `eyespot.distill.classes.logit_losses.ofa`."""
    ofa_exponents: tuple[Positive, ...] = Field(default=(1.0,), min_length=1)
    """ofa: how much more the true class counts (eps, gamma): one for all, or one per stage and a last one for the
    student's own logits. 1.5 in the authors' ImageNet example, usually 1.1 to 1.4 in the paper."""
    ofa_stage_weight: Weight = 1.0
    """ofa: weight of each stage's term. The authors' results on CIFAR-100 need 0.1, which their README does not say."""

    cc_scale: Weight = 0.02
    """cc: weight inside of `weight`."""
    cc_width: int = Field(default=128, gt=0)
    """cc: width of the common space of both summaries."""

    rkd_distance: Weight = 25.0
    """rkd: weight of the distances between pictures."""
    rkd_angle: Weight = 50.0
    """rkd: weight of the angles between triplets of pictures."""

    crd_width: int = Field(default=128, gt=0)
    """crd: width of the space in which pictures are told apart."""
    crd_negatives: int = Field(default=16384, gt=0)
    """crd: other pictures to tell each one apart from, per step."""
    crd_momentum: float = Field(default=0.5, ge=0, lt=1)
    """crd: how much of an entry of the memory stays when its picture is seen again."""
    crd_temperature: Positive = 0.07
    """crd: temperature of the similarities."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if list(self.stages) != sorted(set(self.stages)):
            raise ValueError(f"stages must ascend, each once, like 1 2 3 4; got {self.stages}")
        if len(self.ofa_exponents) not in (1, len(self.stages) + 1):
            raise ValueError(
                f"ofa_exponents takes one value, or {len(self.stages) + 1} (one for each of {len(self.stages)} stages "
                f"and a last one for the student's own logits); got {len(self.ofa_exponents)}"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LabelConfig:
    """What the pictures' own labels say."""

    loss: Literal["ce", "bce"] = "ce"
    """ce: cross-entropy, summed over classes; bce: sigmoid cross-entropy, averaged over classes, which beside a teacher
    is nearly silent (VanillaKD)."""
    weight: float = Field(default=1.0, ge=0)
    """Weight of this term; 0 learns from the teacher alone, from pictures without labels."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MixConfig:
    """How the pictures and labels of a batch are mixed; by default not at all."""

    mixup: float = Field(default=0.0, ge=0)
    """Mixup: the share of the first picture is drawn from Beta(this, this); 0 for none."""
    cutmix: float = Field(default=0.0, ge=0)
    """CutMix: the area left of the first picture is drawn from Beta(this, this); 0 for none."""
    probability: Probability = 1.0
    """Probability that a batch is mixed."""
    switch_probability: Probability = 0.5
    """With both, the probability that a batch that is mixed gets CutMix."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """This much of each label is spread evenly over all classes, mixed or not. It is in the targets, so no loss may
    smooth them again."""
