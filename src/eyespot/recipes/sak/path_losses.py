"""What it costs a map of the student to differ from a teacher's map of the same level (SAK). All in float32."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from eyespot.distill.classes.logit_losses import in_float32
from eyespot.distill.features.losses import cosine_loss
from eyespot.recipes.sak.config import PathLoss


@in_float32
def path_loss(ours: Tensor, theirs: Tensor, kind: PathLoss = "cos+l1") -> Tensor:
    """Difference of two maps of the same pictures, as a scalar.

    SAK's code, `losses.py`: "cos+l1" (its default) is 0.9 times "cos" plus 0.1 times smooth L1 with threshold 1, a mean
    over all numbers; "cos" is 1 minus the cosine of the two maps of a picture, each taken as ONE vector of all its
    D x h x w numbers, averaged over pictures; "l2" is the mean squared error.

    Args:
        ours: [B, D, h, w], the student's.
        theirs: [B, D, h', w'], the teacher's.
        kind: which.

    Raises:
        ValueError: an unknown kind, or maps of different widths.
    """
    if kind not in PATH_LOSSES:
        raise ValueError(f"there is no path loss {kind!r}; take one of {', '.join(PATH_LOSSES)}")
    if ours.shape[1] != theirs.shape[1]:
        raise ValueError(
            f"the student's map has {ours.shape[1]} channels, the teacher's {theirs.shape[1]}: an aligner "
            f"Linear({ours.shape[1]} -> {theirs.shape[1]}) has to stand between them"
        )
    return PATH_LOSSES[kind](*on_one_grid(ours, theirs))


def on_one_grid(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps on the grid of the one with more rows; the other is resized bilinearly, corners not aligned (SAK).

    With as many rows, the one with more columns counts (ours; there the code resizes nothing).
    """
    mine, other = ours.shape[2:], theirs.shape[2:]
    if tuple(mine) < tuple(other):
        return F.interpolate(ours, size=other, mode="bilinear", align_corners=False), theirs
    if tuple(mine) > tuple(other):
        return ours, F.interpolate(theirs, size=mine, mode="bilinear", align_corners=False)
    return ours, theirs


def _cosine(ours: Tensor, theirs: Tensor) -> Tensor:
    return cosine_loss(ours.flatten(1), theirs.flatten(1))


def _cosine_and_l1(ours: Tensor, theirs: Tensor) -> Tensor:
    return 0.9 * _cosine(ours, theirs) + 0.1 * F.smooth_l1_loss(ours, theirs)


PATH_LOSSES: dict[PathLoss, Callable[[Tensor, Tensor], Tensor]] = {
    "cos+l1": _cosine_and_l1,
    "cos": _cosine,
    "l2": F.mse_loss,
}
"""Losses of two maps of one shape [B, D, h, w]."""
