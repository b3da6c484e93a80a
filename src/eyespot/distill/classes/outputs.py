"""What a classifier shows to a method of distillation, and what a method is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from eyespot.distill.classes.config import MethodSettings
from eyespot.encoders import Encoder
from eyespot.encoders.taps import STAGES, Taps


@dataclass(frozen=True)
class ClassifierOutput:
    """What a classifier says about a batch of pictures.

    Attributes:
        logits: [B, K].
        summary: [B, C], what the classifier's last layer sees (pooled map or class token).
        taps: outputs of inner stages, shallow to deep (four as a rule): maps [B, D, h, w] or tokens [B, N, D] with
            prefix tokens in front; empty if nobody asked for them. See `eyespot.encoders.taps`.
    """

    logits: Tensor
    summary: Tensor
    taps: Sequence[Tensor] = ()

    def detach(self) -> ClassifierOutput:
        """The same without a way back for gradients."""
        return ClassifierOutput(self.logits.detach(), self.summary.detach(), tuple(tap.detach() for tap in self.taps))


@dataclass(frozen=True)
class OutputShape:
    """The shapes of an output, without the batch.

    Attributes:
        num_classes: K.
        summary: C.
        taps: (D, h, w) of a map, (N, D) of tokens, at the size of picture that is trained on.
        prefix_tokens: class and register tokens at the front of the N.
    """

    num_classes: int
    summary: int
    taps: tuple[tuple[int, ...], ...] = ()
    prefix_tokens: int = 0


class Method(nn.Module, ABC):
    """A way to tell a student what a teacher knows; owns what it needs for that and throws away after training.

    Args:
        settings: hyper-parameters.
        student: shapes of the student's output, with those of its taps if the method wants them.
        teacher: shapes of the teacher's output, likewise.
        pictures: how many there are over all sources; `picture` of `forward` is below that.

    Attributes:
        student_taps: whether it wants `ClassifierOutput.taps` of the student.
        teacher_taps: whether it wants those of the teacher.
        teacher_logits: whether it wants `ClassifierOutput.logits` of the teacher, which then needs a class head.
    """

    student_taps: bool = False
    teacher_taps: bool = False
    teacher_logits: bool = True

    def __init__(self, settings: MethodSettings, student: OutputShape, teacher: OutputShape, pictures: int) -> None:
        super().__init__()
        self.settings = settings

    @abstractmethod
    def losses(
        self, student: ClassifierOutput, teacher: ClassifierOutput, target: Tensor, picture: Tensor
    ) -> dict[str, Tensor]:
        """As `forward`; the teacher's output has no way back for gradients."""

    def forward(
        self, student: ClassifierOutput, teacher: ClassifierOutput, target: Tensor, picture: Tensor
    ) -> dict[str, Tensor]:
        """Named loss terms, weighted, to be summed; the hard-label term is not among them.

        Args:
            student: output of the student, with gradients.
            teacher: output of the teacher for the same pictures; nothing flows back into it.
            target: int64 [B], the hard class: the largest entry of a mixed label, the teacher's choice where a picture
                has no label.
            picture: int64 [B], number of each picture over all sources.

        Returns:
            Scalars in float32.
        """
        return self.losses(student, teacher.detach(), target, picture)


@torch.no_grad()
def output_shape(encoder: Encoder, taps: Taps | None = None, size: int | None = None) -> OutputShape:
    """The shapes of an encoder's output, found by showing it one black picture.

    It runs as in evaluation, so that no statistics change, on whatever device it is; the meta device will do.

    Args:
        encoder: a classifier, or any encoder for methods that do not compare logits (0 classes).
        taps: what is tapped; None: nothing.
        size: side of the picture in pixels, rounded to what the encoder takes; None: its default size.
    """
    images = torch.zeros(1, 3, *encoder.fitting_size(size), device=encoder.device)
    training = [module for module in encoder.modules() if module.training]
    encoder.eval()
    try:
        features, tapped = taps(images) if taps else (encoder(images), [])
    finally:
        for module in training:
            module.training = True
    last_tokens = tapped[-1].shape[1] if tapped and tapped[-1].ndim == 3 else 0
    return OutputShape(
        num_classes=0 if features.logits is None else features.logits.shape[1],
        summary=features.summary.shape[1],
        taps=tuple(tuple(tap.shape[1:]) for tap in tapped),
        # the last tap has one token per patch, and what stands in front of them
        prefix_tokens=max(0, last_tokens - features.patches.shape[2] * features.patches.shape[3]),
    )


def require_same_classes(student: OutputShape, teacher: OutputShape) -> None:
    """For methods that compare logits.

    Raises:
        ValueError: the numbers of classes differ.
    """
    if student.num_classes != teacher.num_classes:
        raise ValueError(
            f"the student has {student.num_classes} classes, the teacher {teacher.num_classes}: give the student a "
            f"head of {teacher.num_classes} classes, or take a method on features (fitnet, cc, rkd, crd)"
        )


def require_taps(method: str, who: str, shape: OutputShape) -> None:
    """For methods that look at the four stages.

    Raises:
        ValueError: there are not four taps.
    """
    if len(shape.taps) != STAGES:
        raise ValueError(
            f"{method} needs four taps of the {who}, got {len(shape.taps)}: "
            "look_shape(encoder, Taps(encoder), size) finds them"
        )
