"""How a classifier looks to a method of distillation, and what a method is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Look:
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

    def detach(self) -> Look:
        """The same without a way back for gradients."""
        return Look(self.logits.detach(), self.summary.detach(), tuple(tap.detach() for tap in self.taps))


@dataclass(frozen=True)
class LookShape:
    """The shapes of a look, without the batch.

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

    Attributes:
        student_taps: whether it wants `Look.taps` of the student.
        teacher_taps: whether it wants those of the teacher.
    """

    student_taps: bool = False
    teacher_taps: bool = False

    @abstractmethod
    def losses(self, student: Look, teacher: Look, target: Tensor, picture: Tensor) -> dict[str, Tensor]:
        """As `forward`; the teacher's look has no way back for gradients."""

    def forward(self, student: Look, teacher: Look, target: Tensor, picture: Tensor) -> dict[str, Tensor]:
        """Named loss terms, weighted, to be summed; the hard-label term is not among them.

        Args:
            student: look of the student, with gradients.
            teacher: look of the teacher at the same pictures; nothing flows back into it.
            target: int64 [B], the hard class: the largest entry of a mixed label, the teacher's choice where a picture
                has no label.
            picture: int64 [B], number of each picture over all sources.

        Returns:
            Scalars in float32.
        """
        return self.losses(student, teacher.detach(), target, picture)
