"""Linear monocular depth on frozen patches."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from eyespot.evaluate.datasets.base import DepthData
from eyespot.evaluate.extract import FeatureBank
from eyespot.evaluate.probe import ProbeConfig, linear_head, predictions, train_probe

SCHEDULE = ProbeConfig(steps=300, batch_size=8, learning_rate=1e-2, weight_decay=1e-3, betas=(0.9, 0.99), clip=35.0)
BINS = 256
MEAN_WEIGHT = 0.15


class BinnedDepth(nn.Module):
    """Depth as an expectation over linear bins.

    ReLU + 0.1, normalised to sum 1 over the bins, times the bins' depths (EUPE's and DINOv3's head; paper notes, C).

    Args:
        channels: width of the patches.
        low, high: depth in metres of the first and the last bin.
        bins: how many.
        seed: names the initial weights.
    """

    totals: Tensor

    def __init__(self, channels: int, low: float, high: float, bins: int = BINS, seed: int = 0) -> None:
        super().__init__()
        if not 0 < low < high:
            raise ValueError(f"depth bins need 0 < low < high, got {low} and {high}")
        self.scores = linear_head(channels, bins, seed)
        depths = torch.linspace(low, high, bins)
        # One product gives the weighted sum of the depths and the sum of the weights.
        self.register_buffer("totals", torch.stack([depths, torch.ones(bins)]))

    def forward(self, patches: Tensor) -> Tensor:
        """[b, D, h, w] patches to [b, 1, h, w] metres."""
        weights = self.scores(patches).relu() + 0.1
        depth, weight = (self.totals @ weights.flatten(2)).unflatten(2, weights.shape[2:]).split(1, dim=1)
        return depth / weight


def scale_invariant_log_loss(depth: Tensor, truth: Tensor, mean_weight: float = MEAN_WEIGHT) -> Tensor:
    """Root of (variance + `mean_weight` * squared mean) of the log ratio, over pixels with truth > 0.

    Args:
        depth: predictions in metres, positive.
        truth: metres, of the same shape; 0 = no measurement.
        mean_weight: 0.15 in EUPE's protocol; 1 would make it the plain RMS of the log ratio.

    Returns:
        A scalar; 0 if fewer than two pixels are measured.
    """
    valid = truth > 0
    if int(valid.sum()) < 2:
        return depth.sum() * 0
    ratio = depth[valid].log() - truth[valid].log()
    return (ratio.var() + mean_weight * ratio.mean() ** 2 + 1e-12).sqrt()


def depth_errors(depth: Tensor, truth: Tensor) -> dict[str, float] | None:
    """RMSE (metres), AbsRel and delta1 (share of ratios below 1.25) of one picture, where truth > 0.

    Returns:
        None if nothing in the picture is measured.
    """
    valid = truth > 0
    if not bool(valid.any()):
        return None
    predicted, true = depth[valid].double(), truth[valid].double()
    return {
        "RMSE": float((predicted - true).square().mean().sqrt()),
        "AbsRel": float(((predicted - true).abs() / true).mean()),
        "delta1": float((torch.maximum(predicted / true, true / predicted) < 1.25).double().mean()),
    }


def run(bank: FeatureBank, data: DepthData, seed: int = 0, steps: int = SCHEDULE.steps) -> dict[str, float]:
    """RMSE, AbsRel and delta1, each averaged over pictures, of a linear probe with 256 bins.

    After EUPE's and DINOv3's linear depth (paper notes, C): batch norm, 1x1 convolution to 256 linear bins,
    expectation, scale-invariant log loss with mean weight 0.15, AdamW (betas 0.9, 0.99; decay 1e-3), clipping at 35.
    Deviations, all for speed: 300 steps of 8 pictures at peak rate 1e-2 instead of 38,400 of 16
    at 3e-4; no loss warm-up and no
    cycling of beta1; features extracted once, so no augmentation; the whole picture, no Eigen crop; no flip at test
    time; the loss at 1,024 random pixels per picture and step. The backbone stays in eval mode.

    Args:
        bank: the encoder.
        data: pictures and depth maps.
        seed: names the initial weights, the batches and the pixels.
        steps: optimiser steps.

    Raises:
        ValueError: no picture of the validation split has a measured pixel.
    """
    train, val = bank.features(data.train.pictures), bank.features(data.val.pictures)
    head = BinnedDepth(train.patches.shape[1], data.low, data.high, seed=seed)
    train_probe(
        head,
        train.patches,
        data.train.labels,
        lambda depth, truth: scale_invariant_log_loss(depth[:, 0], truth),
        replace(SCHEDULE, steps=steps),
        seed,
    )
    results = [depth_errors(depth[0], truth) for depth, truth in predictions(head, val.patches, data.val.labels)]
    measured = [errors for errors in results if errors is not None]
    if not measured:
        raise ValueError("no picture of the validation split has a measured depth")
    return {name: sum(errors[name] for errors in measured) / len(measured) for name in measured[0]}
