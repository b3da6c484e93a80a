"""Losses of dense tasks: a head's raw outputs against label maps as `eyespot.dense_tasks` defines them.

One function per kind of task, all `loss(output, label)` -> a scalar in float32, not yet weighted. Pixels without a
label count for nothing; a batch without any labelled pixel costs 0, with gradients of 0. The formulas are those of
SAK's code (`losses.py`) unless they say "ours".
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from eyespot.dense_tasks import IGNORE, Kind
from eyespot.distill.classes.logit_losses import in_float32

BOUNDARY_SHARE = 0.95
"""Weight of pixels on a boundary; those beside it have the rest. As if one pixel in twenty were on one."""

SHORTEST = 1e-4
"""Predicted normals count as at least so long when they are normalised (ours): keeps gradients finite."""


@in_float32
def class_loss(output: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy, a mean over labelled pixels.

    Args:
        output: logits [B, C, H, W].
        label: classes, uint8 [B, H, W].
    """
    total = F.cross_entropy(output, label.long(), ignore_index=IGNORE, reduction="sum")
    return total / _count(label != IGNORE)


@in_float32
def saliency_loss(output: Tensor, label: Tensor, balanced: bool = True) -> Tensor:
    """Cross-entropy of two classes; each weighs as much as the batch has of the OTHER one.

    With r the share of background among the labelled pixels of the batch, background weighs 1 - r and salient pixels r.
    The sum is divided by the number of labelled pixels, not by their weights.

    Args:
        output: logits [B, 2, H, W], background first.
        label: uint8 [B, H, W], 1 salient, 0 not.
        balanced: False for plain cross-entropy.
    """
    if not balanced:
        return class_loss(output, label)
    labelled = label != IGNORE
    background = (label == 0).sum() / _count(labelled)
    errors = F.cross_entropy(output, label.long(), ignore_index=IGNORE, reduction="none")
    weights = background + (label == 0) * (1 - 2 * background)
    return (weights * errors).sum() / _count(labelled)


@in_float32
def boundary_loss(output: Tensor, label: Tensor) -> Tensor:
    """Binary cross-entropy, 0.95 for pixels on a boundary and 0.05 for all others, a mean over labelled pixels.

    Args:
        output: logits [B, 1, H, W].
        label: uint8 [B, H, W], 1 on a boundary.
    """
    labelled = label != IGNORE
    weights = labelled * ((1 - BOUNDARY_SHARE) + (label == 1) * (2 * BOUNDARY_SHARE - 1))
    errors = F.binary_cross_entropy_with_logits(output[:, 0], (label == 1).float(), reduction="none")
    return (weights * errors).sum() / _count(labelled)


@in_float32
def normals_loss(output: Tensor, label: Tensor) -> Tensor:
    """L1 distance between the normalised output and the label, summed over channels, a mean over labelled pixels.

    Args:
        output: [B, 3, H, W], vectors of any length.
        label: float32 [B, 3, H, W], unit vectors; (0, 0, 0) where there is none.
    """
    directions = output * output.square().sum(1, keepdim=True).clamp(min=SHORTEST**2).rsqrt()
    labelled = (label != 0).any(1)
    return ((directions - label).abs().sum(1) * labelled).sum() / _count(labelled)


@in_float32
def depth_loss(output: Tensor, label: Tensor) -> Tensor:
    """L1 distance in metres, a mean over labelled pixels.

    Args:
        output: metres [B, 1, H, W].
        label: metres, float32 [B, H, W]; 0 where there is none.
    """
    labelled = label > 0
    return ((output[:, 0] - label).abs() * labelled).sum() / _count(labelled)


@in_float32
def keypoint_loss(output: Tensor, label: Tensor) -> Tensor:
    """Binary cross-entropy with the heat map as a soft label, a mean over pixels and types of key points (ours).

    Unlike a squared error of the sigmoid it still pulls where the output is certain and wrong, which it soon is on maps
    that are 0 nearly everywhere.

    Args:
        output: logits [B, C, H, W].
        label: float32 [B, C, H, W] in [0, 1].
    """
    return F.binary_cross_entropy_with_logits(output, label)


def _count(labelled: Tensor) -> Tensor:
    """How many pixels are labelled, at least 1, so that sums of nothing can be divided by it."""
    return labelled.sum().clamp(min=1)


DENSE_LOSSES: dict[Kind, Callable[[Tensor, Tensor], Tensor]] = {
    "classes": class_loss,
    "saliency": saliency_loss,
    "boundary": boundary_loss,
    "normals": normals_loss,
    "depth": depth_loss,
    "keypoints": keypoint_loss,
}
"""The loss of each kind of task."""
