"""Linear surface normals on frozen patches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot.data.labelled.base import NormalsData
from eyespot.evaluate.extraction import FeatureBank
from eyespot.evaluate.probing.live_probe import changed
from eyespot.evaluate.probing.probe import ProbeConfig, linear_head, predictions, train_probe, upsampled

QUICK = ProbeConfig(steps=300, batch_size=8, learning_rate=1e-2, weight_decay=1e-3)
WITHIN = (11.25, 22.5, 30.0)
BINS_PER_DEGREE = 100


class AngularErrors:
    """Angles between predicted and true normals, pooled over the measured pixels of all pictures.

    The median is read from a histogram of steps of 0.01 degrees, so that memory does not grow with the pictures.
    """

    def __init__(self) -> None:
        self.total = 0.0
        self.count = 0
        self.within = torch.zeros(len(WITHIN), dtype=torch.int64)
        self.histogram = torch.zeros(180 * BINS_PER_DEGREE, dtype=torch.int64)

    def update(self, predicted: Tensor, truth: Tensor) -> None:
        """Counts two maps [3, H, W]: vectors of any length, and true unit normals, 0 0 0 where nothing is measured."""
        measured = (truth != 0).any(dim=0)
        angles = angles_between(predicted[:, measured].double(), truth[:, measured].double())
        self.total += float(angles.sum())
        self.count += len(angles)
        self.within += torch.stack([(angles < limit).sum() for limit in WITHIN])
        bins = (angles * BINS_PER_DEGREE).long().clamp(max=len(self.histogram) - 1)
        self.histogram += torch.bincount(bins, minlength=len(self.histogram))

    def compute(self) -> dict[str, float]:
        """Mean and median in degrees, and the shares of angles below 11.25, 22.5 and 30 degrees.

        Raises:
            ValueError: nothing was measured.
        """
        if self.count == 0:
            raise ValueError("no picture of the validation split has a measured normal")
        middle = int(torch.searchsorted(2 * self.histogram.cumsum(0), self.count))
        shares = {f"within {limit:g}": int(hits) / self.count for limit, hits in zip(WITHIN, self.within, strict=True)}
        return {"mean": self.total / self.count, "median": (middle + 0.5) / BINS_PER_DEGREE, **shares}


def angles_between(one: Tensor, other: Tensor) -> Tensor:
    """Angles [...] in degrees, 0 to 180, between vectors [3, ...] of any length; 90 where one of them is 0."""
    one, other = F.normalize(one, dim=0), F.normalize(other, dim=0)
    # Exact also for tiny angles, where the arc cosine is not.
    return torch.rad2deg(2 * torch.atan2((one - other).norm(dim=0), (one + other).norm(dim=0)))


def direction_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """Mean of 1 - cosine between vectors [b, 3, P] and true normals, where those are not 0; 0 if none is measured."""
    measured = (truth != 0).any(dim=1)
    loss = (1 - F.cosine_similarity(predicted, truth, dim=1)) * measured
    return loss.sum() / measured.sum().clamp(min=1)


def run(
    bank: FeatureBank,
    data: NormalsData,
    seed: int = 0,
    *,
    steps: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
) -> dict[str, float]:
    """Angular errors of a linear probe: batch norm and 1x1 convolution on patches to a vector, cosine loss.

    Ours, in the form of the quick depth probe (EUPE has none): the vectors are upsampled bilinearly and taken for their
    direction; mean, median and the shares within 11.25, 22.5 and 30 degrees are those usual since Fouhey et al. (2013),
    pooled over pixels.

    Args:
        bank: the encoder.
        data: pictures and maps of normals.
        seed: names the initial weights, the batches and the pixels.
        steps: optimiser steps.
        batch_size: pictures per step.
        learning_rate: peak.

    Raises:
        ValueError: no picture of the validation split has a measured normal.
    """
    config = changed(QUICK, steps=steps, batch_size=batch_size, learning_rate=learning_rate)
    train, val = bank.features(data.train.pictures), bank.features(data.val.pictures)
    head = linear_head(train.patches.shape[1], 3, seed)
    train_probe(head, train.patches, data.train.labels, direction_loss, config, seed)
    errors = AngularErrors()
    for normals, truth in predictions(head, val.patches, data.val.labels):
        errors.update(upsampled(normals, (truth.shape[1], truth.shape[2])), truth)
    return errors.compute()
