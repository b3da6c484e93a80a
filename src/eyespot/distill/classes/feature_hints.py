"""Methods on features: FitNet, correlation congruence (CC), relational distillation (RKD). CRD is in `crd`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyespot.distill.classes.config import MethodSettings
from eyespot.distill.classes.exits import grid_side
from eyespot.distill.classes.logit_losses import in_float32
from eyespot.distill.classes.outputs import ClassifierOutput, Method, OutputShape, require_taps
from eyespot.features import resize_map

SHORTEST = 1e-6
"""Distances between pictures count as at least so long, so that equal pictures have a gradient."""


class FitNet(Method):
    """Four stages of the student imitate those of the teacher, through a 1x1 convolution without bias ("fitnet").

    Mean squared error of each stage, summed (Romero et al., 2015; four stages as in OFA-KD). Of any families (ours; the
    code of OFA-KD takes CNNs only, though its tables have all): tokens lose their prefix and become a map, and the
    student's map is brought onto the teacher's grid, by averaging where it is finer, bicubically where it is coarser.

    Raises:
        ValueError: one of them has no four taps.
    """

    student_taps = teacher_taps = True
    teacher_logits = False

    def __init__(self, settings: MethodSettings, student: OutputShape, teacher: OutputShape, pictures: int) -> None:
        super().__init__(settings, student, teacher, pictures)
        require_taps("fitnet", "student", student)
        require_taps("fitnet", "teacher", teacher)
        self.student_prefix, self.teacher_prefix = student.prefix_tokens, teacher.prefix_tokens
        self.regressors = nn.ModuleList(
            nn.Conv2d(_channels(student, stage), _channels(teacher, stage), 1, bias=False) for stage in settings.stages
        )

    def losses(
        self, student: ClassifierOutput, teacher: ClassifierOutput, target: Tensor, picture: Tensor
    ) -> dict[str, Tensor]:
        """`fitnet`."""
        errors = []
        for stage, regressor in zip(self.settings.stages, self.regressors, strict=True):
            ours = as_map(student.taps[stage - 1], self.student_prefix)
            theirs = as_map(teacher.taps[stage - 1], self.teacher_prefix)
            errors.append(mean_squared_error(on_grid_of(theirs, ours, regressor), theirs))
        return {"fitnet": self.settings.weight * torch.stack(errors).sum()}


class CorrelationCongruence(Method):
    """Differences between student and teacher do not repeat from one picture to the next ("cc").

    Both summaries go through linear layers into one space; d_i is the absolute difference of picture i there. The loss
    is `cc_scale` times the mean of <d_i, d_i+1> over neighbours in the batch, as the code of OFA-KD and VanillaKD has
    it; the paper of this name (Peng et al., 2019) compares correlation matrices instead. 0 for a batch of one picture.
    """

    teacher_logits = False

    def __init__(self, settings: MethodSettings, student: OutputShape, teacher: OutputShape, pictures: int) -> None:
        super().__init__(settings, student, teacher, pictures)
        self.student_embedding = nn.Linear(student.summary, settings.cc_width)
        self.teacher_embedding = nn.Linear(teacher.summary, settings.cc_width)

    def losses(
        self, student: ClassifierOutput, teacher: ClassifierOutput, target: Tensor, picture: Tensor
    ) -> dict[str, Tensor]:
        """`cc`."""
        ours, theirs = self.student_embedding(student.summary), self.teacher_embedding(teacher.summary)
        return {"cc": self.settings.weight * self.settings.cc_scale * neighbour_correlation(ours, theirs)}


class RelationalKD(Method):
    """The student's summaries lie to each other as the teacher's do ("rkd"; Park et al., 2019). No weights."""

    teacher_logits = False

    def losses(
        self, student: ClassifierOutput, teacher: ClassifierOutput, target: Tensor, picture: Tensor
    ) -> dict[str, Tensor]:
        """`rkd_distance`, `rkd_angle`."""
        own = self.settings
        return {
            "rkd_distance": own.weight * own.rkd_distance * distance_loss(student.summary, teacher.summary),
            "rkd_angle": own.weight * own.rkd_angle * angle_loss(student.summary, teacher.summary),
        }


@in_float32
def mean_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over everything."""
    return F.mse_loss(prediction, target)


@in_float32
def neighbour_correlation(ours: Tensor, theirs: Tensor) -> Tensor:
    """Mean over neighbours i, i+1 in the batch of <|a_i - b_i|, |a_i+1 - b_i+1|>, for a, b [B, C]; 0 for B = 1."""
    difference = (ours - theirs).abs()
    return (difference[:-1] * difference[1:]).sum() / max(1, len(difference) - 1)


@in_float32
def distance_loss(ours: Tensor, theirs: Tensor) -> Tensor:
    """Smooth-L1 of the Euclidean distances between all pairs of [B, C] and of [B, D]; mean over B^2, with the diagonal.

    Distances of either side are first divided by their mean over the pairs of different pictures (Park et al.).
    """
    return F.smooth_l1_loss(_relative_distances(ours), _relative_distances(theirs))


@in_float32
def angle_loss(ours: Tensor, theirs: Tensor) -> Tensor:
    """Smooth-L1 of the cosines of the angles i-j-k of all triplets of pictures; mean over B^3 (Park et al.).

    Needs memory for B^2 (C + D) and B^3 numbers.
    """
    return F.smooth_l1_loss(_cosines(ours), _cosines(theirs))


def _relative_distances(vectors: Tensor) -> Tensor:
    """[B, B], mean 1 off the diagonal, 0 on it."""
    different = 1 - torch.eye(len(vectors), device=vectors.device)
    squares = _differences(vectors).square().sum(2)
    distances = squares.clamp(min=SHORTEST**2).sqrt() * different
    return distances / (distances.sum() / different.sum().clamp(min=1)).clamp(min=SHORTEST)


def _cosines(vectors: Tensor) -> Tensor:
    """[B, B, B]: cosine of the angle at the picture of the first index between those of the other two."""
    directions = F.normalize(_differences(vectors), dim=2)
    return directions @ directions.transpose(1, 2)


def _differences(vectors: Tensor) -> Tensor:
    """[B, B, C]: from each picture to each."""
    return vectors[None] - vectors[:, None]


def as_map(tap: Tensor, prefix: int) -> Tensor:
    """A tap as map [B, D, h, w]: tokens [B, N, D] without their prefix, as a square grid.

    Raises:
        ValueError: they are not one.
    """
    if tap.ndim == 4:
        return tap
    side = grid_side(tap.shape[1] - prefix)
    return tap[:, prefix:].transpose(1, 2).unflatten(2, (side, side))


def on_grid_of(target: Tensor, maps: Tensor, regressor: nn.Module) -> Tensor:
    """`regressor(maps)` on the target's grid, by way of whichever grid is the coarser."""
    rows, columns = target.shape[2:]
    coarser = (min(maps.shape[2], rows), min(maps.shape[3], columns))
    return resize_map(regressor(F.adaptive_avg_pool2d(maps, coarser)), (rows, columns))


def _channels(output: OutputShape, stage: int) -> int:
    shape = output.taps[stage - 1]
    return shape[0] if len(shape) == 3 else shape[1]
