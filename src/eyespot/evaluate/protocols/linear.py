"""Linear classification: of summaries, and of summary plus coarse patch map for reading a printed word."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot.data.labelled.base import ClassificationData, LabelledPictures
from eyespot.evaluate.extraction import FeatureBank
from eyespot.evaluate.probing.logistic import STRENGTHS, Labelled, logistic_accuracy

READING_GRID = (4, 4)


def run(
    bank: FeatureBank, data: ClassificationData, seed: int = 0, strengths: float | tuple[float, ...] = STRENGTHS
) -> dict[str, float]:
    """Logistic regression on summaries, its penalty chosen on held-out training pictures; see `logistic_accuracy`.

    Ours: EUPE publishes no linear classification. On the encoder's device.

    Args:
        bank: the encoder.
        data: pictures without a label are left out.
        seed: names the parts that are held out.
        strengths: inverse strengths of the penalty (C of scikit-learn, on features whose total variance is one) that
            are tried.
    """
    return _run(bank, data, seed, strengths, lambda split: bank.summaries(split.pictures))


def run_reading(
    bank: FeatureBank, data: ClassificationData, seed: int = 0, strengths: float | tuple[float, ...] = STRENGTHS
) -> dict[str, float]:
    """Which word is printed in the picture, by logistic regression (ours).

    A word is small and may be anywhere, so the summary alone would be an unfair place to look for it. Every encoder is
    read from the same spatial features: its patch map averaged to 4 x 4 cells, flattened, and its summary beside it,
    [C + 16 D] numbers; cells and summary are brought to one scale. Arguments as in `run`.
    """

    def parts(split: LabelledPictures) -> tuple[Tensor, Tensor]:
        features = bank.features(split.pictures)
        cells = [F.adaptive_avg_pool2d(part.float(), READING_GRID).flatten(1) for part in features.patches.split(256)]
        return features.summary, torch.cat(cells)

    seen = parts(data.train)
    scales = [_scale(part[data.train.labels >= 0]) for part in seen]
    cells = READING_GRID[0] * READING_GRID[1]

    def read_out(split: LabelledPictures) -> Tensor:
        summary, places = seen if split is data.train else parts(split)
        return torch.cat([summary / scales[0], places / scales[1] * cells**0.5], dim=1)

    return _run(bank, data, seed, strengths, read_out)


def _run(
    bank: FeatureBank,
    data: ClassificationData,
    seed: int,
    strengths: float | tuple[float, ...],
    read_out: Callable[[LabelledPictures], Tensor],
) -> dict[str, float]:
    train, queries = (
        with_labels(read_out(split), split.labels, bank.encoder.device) for split in (data.train, data.val)
    )
    return {"accuracy": logistic_accuracy(train, queries, strengths=strengths, seed=seed)}


def _scale(features: Tensor) -> float:
    """Root of the total variance of features [N, C]; 1 where they are all alike."""
    return float(features.double().var(dim=0, correction=0).sum().sqrt()) or 1.0


def with_labels(features: Tensor, labels: Tensor, device: torch.device) -> Labelled:
    """The pictures that have a label, on a device."""
    return Labelled(features, labels)[labels >= 0].to(device)
