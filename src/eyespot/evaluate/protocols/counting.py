"""Counts of right and wrong answers, which many metrics are made of."""

from __future__ import annotations

import torch
from torch import Tensor


def confusion(predictions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """How often each true class (row) was taken for each class (column), int64 [K, K].

    Args:
        predictions: integers of any shape, classes in [0, K).
        labels: of the same shape, the true ones.
        num_classes: K.
    """
    pairs = labels.flatten().long() * num_classes + predictions.flatten().long()
    return torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def counts_above(scores: Tensor, positive: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """How many scores reach each threshold: those that should, and those that should not; int64 [T] each.

    Args:
        scores: float [N].
        positive: bool [N], which of them should.
        thresholds: ascending, [T].
    """
    places = len(thresholds) + 1
    reached = torch.bucketize(scores, thresholds, right=True)
    counts = torch.bincount(reached + places * positive.long(), minlength=2 * places).reshape(2, places)
    wrong, right = counts.flip(1).cumsum(1).flip(1)[:, 1:]
    return right, wrong
