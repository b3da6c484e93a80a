"""Linear semantic segmentation on frozen patches."""

from __future__ import annotations

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from eyespot.evaluate.datasets.base import SegmentationData
from eyespot.evaluate.extract import FeatureBank
from eyespot.evaluate.probe import ProbeConfig, linear_head, predictions, train_probe

SCHEDULE = ProbeConfig(steps=300, batch_size=16, learning_rate=1e-2, weight_decay=1e-3)


class MeanIoU:
    """Intersection over union, averaged over the classes that occur in the labels or in the predictions.

    Pixels are pooled over all pictures, as is usual for mIoU; pixels labelled `ignore` count for nothing.
    """

    def __init__(self, classes: int, ignore: int) -> None:
        self.confusion = MulticlassConfusionMatrix(classes, ignore_index=ignore, validate_args=False)

    def update(self, predicted: Tensor, truth: Tensor) -> None:
        """Counts two integer maps of one shape."""
        self.confusion.update(predicted, truth.long())

    def compute(self) -> float:
        """Mean IoU in [0, 1]; NaN if every pixel was ignored."""
        counts = self.confusion.compute().double()
        both = counts.diagonal()
        either = counts.sum(dim=0) + counts.sum(dim=1) - both
        return float((both[either > 0] / either[either > 0]).mean())


def pixel_cross_entropy(logits: Tensor, truth: Tensor, ignore: int) -> Tensor:
    """Mean cross-entropy of logits [b, K, P] at the labelled ones of pixels [b, P]; 0 if none is labelled."""
    truth = truth.long()
    total = F.cross_entropy(logits, truth, ignore_index=ignore, reduction="sum")
    return total / (truth != ignore).sum().clamp(min=1)


def run(bank: FeatureBank, data: SegmentationData, seed: int = 0, steps: int = SCHEDULE.steps) -> dict[str, float]:
    """The mIoU of a linear probe: batch norm and 1x1 convolution on patches, bilinear upsampling, cross-entropy.

    After EUPE's and DINOv3's linear segmentation (paper notes, C). Deviations, all for speed: a few hundred steps at a
    ten times higher peak rate (1e-2) instead of 40,000 at 1e-3; features extracted once, so no random scaling,
    cropping, flipping or photometric distortion, and no dropout on them; the whole picture at one size instead of a
    sliding window; the loss at 1,024 random pixels per picture and step. The backbone stays in eval mode.

    Args:
        bank: the encoder.
        data: pictures and masks.
        seed: names the initial weights, the batches and the pixels.
        steps: optimiser steps.
    """
    train, val = bank.features(data.train.pictures), bank.features(data.val.pictures)
    head = linear_head(train.patches.shape[1], data.classes, seed)
    train_probe(
        head,
        train.patches,
        data.train.labels,
        lambda logits, truth: pixel_cross_entropy(logits, truth, data.ignore),
        replace(SCHEDULE, steps=steps),
        seed,
    )
    metric = MeanIoU(data.classes, data.ignore)
    for logits, truth in predictions(head, val.patches, data.val.labels):
        metric.update(logits.argmax(dim=0), truth)
    return {"mIoU": metric.compute()}
