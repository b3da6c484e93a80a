"""What it costs to differ from a teacher. Everything here computes in float32, whatever the autocast."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot.features import Features, resize_map

SHORTEST = 1e-8
"""Shorter vectors count as so long, as in PyTorch's cosine similarity."""


def cosine_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - cosine similarity along dimension 1, averaged over everything else; 0 (same direction) to 2 (EUPE eq. 4)."""
    prediction, target = prediction.float(), target.float()
    # F.cosine_similarity makes normalised copies of both maps first and takes three times as long.
    ours, theirs = ((vectors * vectors).sum(1).clamp(min=SHORTEST**2).rsqrt() for vectors in (prediction, target))
    return (1 - (prediction * target).sum(1) * ours * theirs).mean()


def match_grids(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Brings two patch maps onto the larger one's grid: the smaller is resized bicubically (EUPE section 4.1, A.5).

    Where the aspect differs as well, the grid is the larger of each side (ours; the paper has square pictures only).
    """
    grid = (max(prediction.shape[2], target.shape[2]), max(prediction.shape[3], target.shape[3]))
    return resize_map(prediction, grid), resize_map(target, grid)


@dataclass(frozen=True)
class FeatureLoss:
    """How far a student's adapted features are from a teacher's standardized ones, as a weighted sum of three terms.

    The smooth-L1 threshold is not published; PyTorch's 1.0 is ours.

    Attributes:
        summary_cosine: weight of the cosine loss of the summaries (EUPE eq. 4).
        patch_cosine: weight of the cosine loss of the patches (EUPE eq. 5).
        patch_smooth_l1: weight of the smooth-L1 loss of the patches (EUPE eq. 5).
    """

    summary_cosine: float = 1.0
    patch_cosine: float = 0.9
    patch_smooth_l1: float = 0.1

    def __call__(self, prediction: Features, target: Features) -> tuple[Tensor, Tensor]:
        """(summary term, patch term) of features of the same pictures; patch maps may have different grids."""
        with torch.autocast(prediction.summary.device.type, enabled=False):
            maps = match_grids(prediction.patches.float(), target.patches.float())
            return self.summaries(prediction.summary, target.summary), self.patches(*maps)

    def summaries(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The term of summaries [B, C]."""
        return self.summary_cosine * cosine_loss(prediction, target)

    def patches(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The term of patch maps [B, D, h, w] on one grid."""
        smooth_l1 = F.smooth_l1_loss(prediction.float(), target.float())
        return self.patch_cosine * cosine_loss(prediction, target) + self.patch_smooth_l1 * smooth_l1


EUPE_LOSS = FeatureLoss()
"""With the weights of EUPE (A.4)."""
