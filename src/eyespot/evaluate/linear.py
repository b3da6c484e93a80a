"""Linear classification: of summaries, and of summary plus coarse patch map for reading a printed word."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from eyespot.data.randomness import torch_generator
from eyespot.evaluate.datasets.base import ClassificationData, LabelledPictures
from eyespot.evaluate.extract import FeatureBank

STRENGTHS = (1e-4, 1e-2, 1.0)  # values of sklearn's C that are tried
READING_GRID = (4, 4)


def logistic_accuracy(
    train: Tensor,
    labels: Tensor,
    queries: Tensor,
    truth: Tensor,
    strengths: tuple[float, ...] = STRENGTHS,
    seed: int = 0,
    iterations: int = 200,
) -> float:
    """Accuracy of a multinomial logistic regression on standardised features.

    The regulariser is the one of `strengths` that does best on a held-out fifth of the training pictures; then the
    model is fitted again on all of them. (Ours: EUPE publishes no linear classification.)

    Args:
        train: [N, C] features.
        labels: [N] int64, their classes.
        queries: [M, C] features.
        truth: [M] int64, their classes.
        strengths: inverse regularisation strengths (C of scikit-learn).
        seed: names the draw of the held-out fifth.
        iterations: at most so many steps of L-BFGS per fit.

    Raises:
        ValueError: fewer than two classes to tell apart.
    """
    if len(labels.unique()) < 2:
        raise ValueError("logistic regression needs training pictures of at least two classes")
    mean, std = train.mean(dim=0), train.std(dim=0)
    std = torch.where(std > 1e-6 * std.max().clamp(min=1e-12), std, torch.ones(()))
    train, queries = _rotate((train - mean) / std, (queries - mean) / std)
    best = strengths[0]
    if len(strengths) > 1:
        order = torch.randperm(len(train), generator=torch_generator(seed, "held-out fifth"))
        held, kept = order[: max(1, len(order) // 5)], order[max(1, len(order) // 5) :]
        scores = {
            strength: _fit_and_score(train[kept], labels[kept], train[held], labels[held], strength, iterations)
            for strength in strengths
        }
        best = max(scores, key=lambda strength: scores[strength])
    return _fit_and_score(train, labels, queries, truth, best, iterations)


def _rotate(train: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    """Both in an orthonormal basis of the training features, where there are fewer pictures than channels.

    A ridge-penalised linear model lies in the span of its training data and does not see a rotation, so the fit is the
    same and costs less.
    """
    if train.shape[1] <= len(train):
        return train, queries
    basis = torch.linalg.qr(train.T).Q
    return train @ basis, queries @ basis


def _fit_and_score(
    train: Tensor, labels: Tensor, queries: Tensor, truth: Tensor, strength: float, iterations: int
) -> float:
    if len(labels.unique()) < 2:
        return float((truth == labels[0]).float().mean())
    model = LogisticRegression(C=strength, max_iter=iterations, tol=1e-3)
    with warnings.catch_warnings():
        # A weakly regularised fit on separable features never settles; its accuracy long has.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train.numpy(), labels.numpy())
    return float(model.score(queries.numpy(), truth.numpy()))


def run(bank: FeatureBank, data: ClassificationData, seed: int = 0) -> dict[str, float]:
    """Logistic regression on the summaries."""
    return _run(data, seed, lambda split: bank.summaries(split.pictures))


def run_reading(bank: FeatureBank, data: ClassificationData, seed: int = 0) -> dict[str, float]:
    """Which word is printed in the picture, by logistic regression (ours).

    A word is small and may be anywhere, so the summary alone would be an unfair place to look for it. Every encoder is
    read from the same spatial features: its patch map averaged to 4 x 4 cells, flattened, and its summary beside it,
    [C + 16 D] numbers, standardised.
    """

    def read_out(split: LabelledPictures) -> Tensor:
        features = bank.features(split.pictures)
        cells = [F.adaptive_avg_pool2d(part.float(), READING_GRID).flatten(1) for part in features.patches.split(256)]
        return torch.cat([features.summary, torch.cat(cells)], dim=1)

    return _run(data, seed, read_out)


def _run(data: ClassificationData, seed: int, read_out: Callable[[LabelledPictures], Tensor]) -> dict[str, float]:
    known, asked = data.train.labels >= 0, data.val.labels >= 0
    accuracy = logistic_accuracy(
        read_out(data.train)[known],
        data.train.labels[known],
        read_out(data.val)[asked],
        data.val.labels[asked],
        seed=seed,
    )
    return {"accuracy": accuracy}
