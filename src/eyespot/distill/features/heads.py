"""Adapter heads: from the student's space into a teacher's space. Used in training only, but saved with the student."""

from __future__ import annotations

from torch import Tensor, nn

from eyespot.features import Features


class AdapterHead(nn.Sequential):
    """Linear without bias, LayerNorm, GELU, linear without bias, on the last dimension (EUPE section 4.1, A.2).

    Args:
        width: of the student.
        hidden: 1536 in EUPE's stage 1, 3072 in stages 2 and 3.
        out: width of the teacher.
    """

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__(
            nn.Linear(width, hidden, bias=False), nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, out, bias=False)
        )


class TeacherAdapter(nn.Module):
    """The two heads of one teacher: one for the summary, one for every patch, nothing shared (EUPE section 4.1).

    Args:
        student_dims: (summary, patch) widths of the student.
        hidden: hidden width of both heads.
        teacher_dims: (summary, patch) widths of the teacher.
    """

    def __init__(self, student_dims: tuple[int, int], hidden: int, teacher_dims: tuple[int, int]) -> None:
        super().__init__()
        self.summary = AdapterHead(student_dims[0], hidden, teacher_dims[0])
        self.patch = AdapterHead(student_dims[1], hidden, teacher_dims[1])

    def forward(self, features: Features) -> Features:
        """Student features [B, C], [B, D, h, w] -> the same in the teacher's (standardized) space, on the same grid."""
        patches: Tensor = self.patch(features.tokens)
        return Features(self.summary(features.summary), patches.transpose(1, 2).unflatten(2, features.grid))
