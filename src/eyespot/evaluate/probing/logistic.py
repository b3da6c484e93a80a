"""Multinomial logistic regression on frozen features, its regulariser chosen on held-out pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot.randomness import torch_generator

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # values of scikit-learn's C that are tried
ITERATIONS = 200  # steps of L-BFGS per fit, at most
TOLERANCE = 1e-3  # largest component of the gradient at which a fit ends
CHUNK = 2**25  # numbers, of features and logits, that are looked at together (128 MiB)


@dataclass(frozen=True)
class Labelled:
    """Features [N, C] and the classes [N] int64 of N pictures."""

    features: Tensor
    labels: Tensor

    def __getitem__(self, which: Tensor) -> Labelled:
        return Labelled(self.features[which], self.labels[which])

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Labelled:
        """The same on another device."""
        return Labelled(self.features.to(device), self.labels.to(device))


@dataclass(frozen=True)
class LinearClassifier:
    """weight [K, C] and bias [K], one row for each of classes [K] int64."""

    weight: Tensor
    bias: Tensor
    classes: Tensor

    def accuracy(self, pictures: Labelled) -> float:
        """Share of the pictures whose class has the highest logit."""
        predicted = self.classes[(pictures.features @ self.weight.T + self.bias).argmax(dim=1)]
        return float((predicted == pictures.labels).double().mean())


def logistic_accuracy(
    train: Labelled,
    queries: Labelled,
    validation: Labelled | None = None,
    strengths: float | Sequence[float] = STRENGTHS,
    seed: int = 0,
) -> float:
    """Accuracy of a multinomial logistic regression on standardised features, with a validated regulariser.

    Args:
        train: what the classifier is fitted on; its mean and standard deviation standardise everything. All features
            are on one device.
        queries: what it is measured on.
        validation: what the regulariser is chosen on: the strongest of those that do best there. None: a random fifth
            of `train`, while the other four are fitted; then all of `train` is fitted again.
        strengths: one or several inverse regularisation strengths that are tried, C of scikit-learn.
        seed: names the draw of the fifth.

    Raises:
        ValueError: fewer than two classes to tell apart, or no strength.
    """
    if len(train.labels.unique()) < 2:
        raise ValueError("logistic regression needs training pictures of at least two classes")
    tried = sorted([strengths] if isinstance(strengths, int | float) else strengths)
    if not tried or tried[0] <= 0:
        raise ValueError(f"logistic regression needs positive strengths to choose from, got {tried}")
    shown = [queries] if validation is None else [queries, validation]
    train, *shown = _prepared(train, shown)
    best = tried[0]
    if len(tried) > 1:
        kept, held = _split(train, seed) if validation is None else (train, shown[1])
        scores = [classifier.accuracy(held) for classifier in fit_logistic(kept, tried)]
        best = tried[scores.index(max(scores))]
    return next(fit_logistic(train, [best])).accuracy(shown[0])


def _split(train: Labelled, seed: int) -> tuple[Labelled, Labelled]:
    order = torch.randperm(len(train), generator=torch_generator(seed, "held-out fifth")).to(train.labels.device)
    fifth = max(1, len(order) // 5)
    return train[order[fifth:]], train[order[:fifth]]


def _prepared(train: Labelled, others: list[Labelled]) -> list[Labelled]:
    """All standardised; in an orthonormal basis of the training features where these are fewer than channels.

    A ridge-penalised linear model lies in the span of its training data and does not see a rotation, so the fit in that
    basis is the same and costs less.
    """
    mean, std = train.features.mean(dim=0), train.features.std(dim=0)
    std = torch.where(std > 1e-6 * std.max().clamp(min=1e-12), std, torch.ones_like(std))
    standard = [(part.features - mean) / std for part in (train, *others)]
    if train.features.shape[1] > len(train):
        basis = torch.linalg.qr(standard[0].T).Q
        standard = [features @ basis for features in standard]
    return [Labelled(features, part.labels) for features, part in zip(standard, (train, *others), strict=True)]


def fit_logistic(
    train: Labelled, strengths: Sequence[float], iterations: int = ITERATIONS, tolerance: float = TOLERANCE
) -> Iterator[LinearClassifier]:
    """Minimises, for one strength C after the other, mean cross-entropy + |weight|^2 / (2 C N) by L-BFGS.

    The objective of scikit-learn's `LogisticRegression`, and for two classes too, where |weight| is that of the
    difference of the two rows; biases are not penalised. In full batches, where the features are. Each fit starts from
    the one before, so a path from strong to weak regularisation (rising C) is cheap.

    Args:
        train: features and classes.
        strengths: values of C.
        iterations: at most so many steps per strength: a weakly regularised fit on separable features never settles,
            but its accuracy long has.
        tolerance: largest component of the gradient at which a fit ends.
    """
    classes, targets = train.labels.unique(return_inverse=True)
    rows = len(classes) if len(classes) > 2 else 1
    weight = train.features.new_zeros(rows, train.features.shape[1]).requires_grad_()
    bias = train.features.new_zeros(rows).requires_grad_()
    chunk = max(1, CHUNK // (train.features.shape[1] + len(classes)))
    parts = list(zip(train.features.split(chunk), targets.split(chunk), strict=True))
    for strength in strengths:
        optimizer = torch.optim.LBFGS(
            [weight, bias],
            max_iter=iterations,
            tolerance_grad=tolerance,
            tolerance_change=0,
            history_size=10,
            line_search_fn="strong_wolfe",
        )

        def objective(optimizer: torch.optim.LBFGS = optimizer, strength: float = strength) -> Tensor:
            optimizer.zero_grad()
            value = weight.square().sum() / (2 * strength * len(train))
            value.backward()
            for features, truth in parts:
                logits = F.linear(features, *_row_per_class(weight, bias))
                loss = F.cross_entropy(logits, truth, reduction="sum") / len(train)
                loss.backward()
                value = value.detach() + loss.detach()
            return value

        if len(classes) > 1:  # a draw of the held-out fifth may leave only one
            optimizer.step(objective)
        yield LinearClassifier(*_row_per_class(weight.detach().clone(), bias.detach().clone()), classes)


def _row_per_class(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Two classes are fitted by one row: the logit of the second, against a logit of 0 of the first."""
    return (F.pad(weight, (0, 0, 1, 0)), F.pad(bias, (1, 0))) if len(weight) == 1 else (weight, bias)
