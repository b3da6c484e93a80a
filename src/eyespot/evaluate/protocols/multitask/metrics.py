"""One metric per kind of dense task, each pooled over all pixels of all pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from eyespot.dense_tasks import IGNORE, DenseTask, Kind
from eyespot.evaluate.protocols.counting import counts_above
from eyespot.evaluate.protocols.multitask.boundary import THRESHOLDS, BoundaryF
from eyespot.evaluate.protocols.normals import AngularErrors
from eyespot.evaluate.protocols.segmentation import MeanIoU
from eyespot.evaluate.results import Metric

METRICS: Mapping[Kind, Metric] = {
    "classes": Metric("mIoU"),
    "saliency": Metric("maxF"),
    "boundary": Metric("odsF"),
    "normals": Metric("mErr", unit="°", higher_is_better=False),
    "depth": Metric("RMSE", unit="m", higher_is_better=False),
    "keypoints": Metric("PCK"),
}
"""What each kind is judged by. Shares lie in [0, 1], here as everywhere."""

FARTHEST = 80.0
"""Metres from which on depth is not judged."""
BETA_SQUARED = 0.3
HIT = 0.1
"""A key point is hit within this share of the picture's longer side."""
_PEAK = 1 - 1e-3  # of a labelled point's bump


class DenseMetric(Protocol):
    """Takes in picture by picture, keeps counts only, and gives one number."""

    def update(self, output: Tensor, label: Tensor) -> None:
        """Counts one picture: raw output [C, H, W] and label map, see `dense_tasks`; both on the CPU."""
        ...

    def compute(self) -> dict[str, float]:
        """The metric by name; NaN if nothing was labelled."""
        ...


def metric_for(task: DenseTask, thresholds: int = THRESHOLDS) -> DenseMetric:
    """A fresh metric for a task.

    Args:
        task: the data's.
        thresholds: of boundaries, see `BoundaryF`.
    """
    if task.kind == "classes":
        return ClassOverlap(task.channels)
    if task.kind == "boundary":
        return BoundaryF(task.max_distance, thresholds)
    plain: dict[str, Callable[[], DenseMetric]] = {
        "saliency": SaliencyF,
        "normals": NormalsError,
        "depth": DepthError,
        "keypoints": KeyPointHits,
    }
    return plain[task.kind]()


def metric_name(name: str, task: DenseTask) -> str:
    """The key of a task's metric in results, e.g. "depth RMSE"."""
    return f"{name} {METRICS[task.kind].name}"


class ClassOverlap:
    """mIoU from pooled counts, mean over the classes that occur; see `MeanIoU`.

    Args:
        classes: how many.
    """

    def __init__(self, classes: int) -> None:
        self.overlap = MeanIoU(classes, IGNORE)

    def update(self, output: Tensor, label: Tensor) -> None:
        """Counts logits [K, H, W] and classes uint8 [H, W]."""
        self.overlap.update(output.argmax(dim=0), label)

    def compute(self) -> dict[str, float]:
        """The mean, in [0, 1]; NaN if the labels hold fewer than two classes, of which any answer is right."""
        known = int((self.overlap.counts.sum(dim=1) > 0).sum())
        return {"mIoU": self.overlap.compute() if known > 1 else math.nan}


class DepthError:
    """RMSE: root of the mean squared error over all pixels nearer than `FARTHEST`; predictions below 0 count as 0."""

    def __init__(self) -> None:
        self.squares, self.count = 0.0, 0

    def update(self, output: Tensor, label: Tensor) -> None:
        """Counts metres [1, H, W] and true metres [H, W], 0 where nothing is measured."""
        measured = (label > 0) & (label < FARTHEST)
        errors = output[0][measured].double().clamp(min=0) - label[measured].double()
        self.squares += float(errors.square().sum())
        self.count += len(errors)

    def compute(self) -> dict[str, float]:
        """The error in metres."""
        return {"RMSE": math.sqrt(self.squares / self.count) if self.count else math.nan}


class NormalsError:
    """mErr: mean angle between predicted and true normals in degrees, pooled over pixels; see `AngularErrors`."""

    def __init__(self) -> None:
        self.errors = AngularErrors()

    def update(self, output: Tensor, label: Tensor) -> None:
        """Counts vectors of any length and true unit vectors, both [3, H, W]."""
        self.errors.update(output, label)

    def compute(self) -> dict[str, float]:
        """The mean angle in degrees."""
        return {"mErr": self.errors.compute()["mean"] if self.errors.count else math.nan}


class SaliencyF:
    """maxF: the largest F-measure with beta^2 = 0.3 over the thresholds 0.05, 0.1, ... 0.95, of pooled counts.

    A pixel is salient if the probability reaches the threshold (Achanta et al. 2009; SAK, its evaluation section).
    """

    def __init__(self) -> None:
        self.thresholds = torch.linspace(0.05, 0.95, 19)
        self.right, self.wrong = torch.zeros(2, len(self.thresholds), dtype=torch.int64)
        self.salient = self.count = 0

    def update(self, output: Tensor, label: Tensor) -> None:
        """Counts logits [2, H, W] of not salient and salient, and the truth, uint8 [H, W]."""
        known = label != IGNORE
        salient = label[known] == 1
        right, wrong = counts_above(output.float().softmax(dim=0)[1][known], salient, self.thresholds)
        self.right, self.wrong = self.right + right, self.wrong + wrong
        self.salient += int(salient.sum())
        self.count += int(known.sum())

    def compute(self) -> dict[str, float]:
        """The largest F-measure, in [0, 1]; NaN if nothing is salient, or everything."""
        if self.salient in (0, self.count):
            return {"maxF": math.nan}
        precision = (self.right / (self.right + self.wrong)).nan_to_num(0)
        recall = self.right / max(self.salient, 1)
        both = BETA_SQUARED * precision + recall
        score = (1 + BETA_SQUARED) * precision * recall / both.clamp(min=1e-12)
        return {"maxF": float(score.max())}


class KeyPointHits:
    """PCK, ours: how often the strongest peak of a type is near a labelled point of that type.

    One count per picture and type with at least one labelled point, near means within 0.1 of the longer side. Where a
    picture shows several points of a type (two people's noses) any one may be found.
    """

    def __init__(self) -> None:
        self.hits, self.count = 0, 0

    def update(self, output: Tensor, label: Tensor) -> None:
        """Counts logits and bumps, both [C, H, W]."""
        width = output.shape[2]
        limit = HIT * max(output.shape[1:])
        for scores, bumps in zip(output, label, strict=True):
            points = (bumps >= _PEAK).nonzero().double()
            if len(points):
                peak = torch.tensor(divmod(int(scores.argmax()), width), dtype=torch.float64)
                self.hits += int((points - peak).norm(dim=1).min() <= limit)
                self.count += 1

    def compute(self) -> dict[str, float]:
        """The share of hits, in [0, 1]."""
        return {"PCK": self.hits / self.count if self.count else math.nan}
