"""What it costs to differ from a teacher. Everything here computes in float32, whatever the autocast."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot.features import Features, resize_map

COSINE_WEIGHT, SMOOTH_L1_WEIGHT = 0.9, 0.1

SHORTEST = 1e-8
"""Shorter vectors count as so long, as in PyTorch's cosine similarity."""


def cosine_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - cosine similarity along dimension 1, averaged over everything else; 0 (same direction) to 2 (EUPE eq. 4)."""
    prediction, target = prediction.float(), target.float()
    # F.cosine_similarity makes normalised copies of both maps first and takes three times as long.
    ours, theirs = ((vectors * vectors).sum(1).clamp(min=SHORTEST**2).rsqrt() for vectors in (prediction, target))
    return (1 - (prediction * target).sum(1) * ours * theirs).mean()


def summary_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Loss of the summaries [B, C]: cosine (EUPE eq. 4)."""
    return cosine_loss(prediction, target)


def patch_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Loss of the patch maps [B, D, h, w]: 0.9 cosine + 0.1 smooth-L1 (EUPE eq. 5).

    The smooth-L1 threshold is not published; PyTorch's 1.0 is ours.
    """
    smooth_l1 = F.smooth_l1_loss(prediction.float(), target.float())
    return COSINE_WEIGHT * cosine_loss(prediction, target) + SMOOTH_L1_WEIGHT * smooth_l1


def match_grids(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Brings two patch maps onto the larger one's grid: the smaller is resized bicubically (EUPE section 4.1, A.5).

    Where the aspect differs as well, the grid is the larger of each side (ours; the paper has square pictures only).
    """
    grid = (max(prediction.shape[2], target.shape[2]), max(prediction.shape[3], target.shape[3]))
    return resize_map(prediction, grid), resize_map(target, grid)


def distillation_losses(prediction: Features, target: Features) -> tuple[Tensor, Tensor]:
    """(summary loss, patch loss) of adapted student features against standardized teacher features."""
    with torch.autocast(prediction.summary.device.type, enabled=False):
        patches = match_grids(prediction.patches.float(), target.patches.float())
        return summary_loss(prediction.summary, target.summary), patch_loss(*patches)
