"""Multinomial logistic regression on frozen features, its penalty chosen on held-out training pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot.evaluate.probing.axes import PENALTIES, held_out_parts, principal_axes
from eyespot.evaluate.probing.cells import ENOUGH, Cells
from eyespot.evaluate.probing.probe import LinearMap
from eyespot.randomness import torch_generator

STRENGTHS = tuple(10.0**power for power in range(-3, 5))
"""Values of scikit-learn's C that are tried, for features whose total variance is one."""

ITERATIONS = 200  # steps of L-BFGS per fit, at most
TOLERANCE = 1e-6  # relative gain at which a fit ends
COARSE_ITERATIONS, COARSE = 50, 1e-4  # the same while penalties are compared
ENOUGH_ROWS = 500  # of whole pictures, held out to choose a penalty, see `axes.held_out_parts`
NEVER = -1e4  # a score below all that occur
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
class Examples:
    """What is fitted.

    Attributes:
        inputs: [n, r].
        targets: int64 [n], a class in [0, K), or shares of the classes, [n, K].
        weights: [n], how much each row counts.
        classes: K.
    """

    inputs: Tensor
    targets: Tensor
    weights: Tensor
    classes: int

    def counting(self, weights: Tensor) -> Examples:
        """The same rows with other weights; nothing is copied."""
        return Examples(self.inputs, self.targets, weights, self.classes)

    def parts(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Inputs, targets and weights, as many rows together as memory should hold."""
        size = max(1, CHUNK // (self.inputs.shape[1] + self.classes))
        return zip(self.inputs.split(size), self.targets.split(size), self.weights.split(size), strict=True)


@dataclass(frozen=True)
class LinearClassifier:
    """weight [K, r] and bias [K]."""

    weight: Tensor
    bias: Tensor

    def logits(self, inputs: Tensor) -> Tensor:
        """[n, r] -> [n, K]."""
        return F.linear(inputs, self.weight, self.bias)

    @torch.no_grad()
    def answers(self, data: Examples) -> Tensor:
        """Weights of the rows by true class (row) and answer (column), float64 [K, K]."""
        found = torch.zeros(data.classes, data.classes, dtype=torch.float64)
        for inputs, targets, weights in data.parts():
            shares = F.one_hot(targets, data.classes) if targets.ndim == 1 else targets
            answers = self.logits(inputs).argmax(dim=1).cpu()
            found.index_add_(1, answers, (shares * weights[:, None]).T.cpu().double())
        return found


def share_right(answers: Tensor) -> float:
    """Accuracy, from weights of true classes by answers [K, K]."""
    return float(answers.trace() / answers.sum())


def mean_overlap(answers: Tensor) -> float:
    """Mean IoU over the classes that occur, from weights of true classes by answers [K, K]."""
    right = answers.diagonal()
    either = answers.sum(dim=0) + answers.sum(dim=1) - right
    return float((right[either > 0] / either[either > 0]).mean())


def fit_logistic(
    data: Examples,
    penalties: Sequence[float],
    start: LinearClassifier | None = None,
    iterations: int = ITERATIONS,
    tolerance: float = TOLERANCE,
) -> Iterator[LinearClassifier]:
    """Minimises, for one penalty after the other, weighted mean cross-entropy + penalty / 2 * |weight|^2 by L-BFGS.

    The objective of scikit-learn's `LogisticRegression` at C = 1 / (penalty * N) (for two classes, where that fits one
    row, at half of it); biases are not penalised. In full batches, where the features are. Each fit starts from the one
    before, so a path from strong to weak penalties is cheap; every weight is measured in units of what it may well
    become, given variance of its input and penalty, so that few steps are enough.

    Args:
        data: what is fitted.
        penalties: best in falling order.
        start: where the first fit starts.
        iterations: at most so many steps per penalty: a weakly penalised fit on separable features never settles, but
            its answers long have.
        tolerance: relative gain of a step at which a fit ends.
    """
    from scipy.optimize import minimize

    width, total = data.inputs.shape[1], float(data.weights.sum())
    spread = torch.stack([part.square().T @ weights for part, _, weights in data.parts()]).sum(dim=0) / total
    bend = (data.classes - 1) / data.classes**2  # p (1 - p) of even odds
    shape = (data.classes, width + 1)
    now = np.zeros(shape)
    if start is not None:
        now = torch.cat([start.weight, start.bias[:, None]], dim=1).cpu().double().numpy()
    for penalty in penalties:
        units = 1 / (F.pad(spread * bend + penalty, (0, 1), value=bend)).sqrt().cpu().double().numpy()

        def objective(
            flat: np.ndarray, units: np.ndarray = units, penalty: float = penalty
        ) -> tuple[float, np.ndarray]:
            weights = flat.reshape(shape) * units
            value, slope = _loss_and_slope(data, _classifier(weights, data.inputs), total)
            slope[:, :-1] += penalty * weights[:, :-1]
            return value + penalty / 2 * float(np.square(weights[:, :-1]).sum()), (slope * units).ravel()

        found = minimize(
            objective,
            (now / units).ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": iterations, "ftol": tolerance, "gtol": tolerance},
        )
        now = found.x.reshape(shape) * units
        yield _classifier(now, data.inputs)


def _classifier(weights: np.ndarray, like: Tensor) -> LinearClassifier:
    both = torch.from_numpy(weights).to(like.dtype).to(like.device)
    return LinearClassifier(both[:, :-1], both[:, -1])


@torch.no_grad()
def _loss_and_slope(data: Examples, classifier: LinearClassifier, total: float) -> tuple[float, np.ndarray]:
    """Weighted mean cross-entropy, and its derivative by weights and bias, [K, r + 1]."""
    value, slope = 0.0, torch.zeros(data.classes, data.inputs.shape[1] + 1, dtype=torch.float64)
    for inputs, targets, weights in data.parts():
        logs = classifier.logits(inputs).log_softmax(dim=1)
        miss = logs.exp()
        if targets.ndim == 1:
            rows = torch.arange(len(targets), device=targets.device)
            value -= float(logs[rows, targets] @ weights)
            miss[rows, targets] -= 1
        else:
            value -= float((logs * targets).sum(dim=1) @ weights)
            miss -= targets
        miss *= weights[:, None]
        slope[:, :-1] += (miss.T @ inputs).cpu().double()
        slope[:, -1] += miss.sum(dim=0).cpu().double()
    return value / total, (slope / total).numpy()


def chosen_classifier(
    data: Examples,
    penalties: Sequence[float],
    pairs: Sequence[tuple[Examples, Examples]],
    score: Callable[[Tensor], float],
) -> LinearClassifier:
    """The fit on all rows with the penalty that does best on what was held out, the strongest of several.

    Args:
        data: what is fitted in the end.
        penalties: in falling order.
        pairs: what is fitted to choose among them, and what it is judged on; without any, the strongest is taken.
        score: of the answers to all that was held out, see `LinearClassifier.answers`; larger is better.
    """
    if len(penalties) == 1 or not pairs:
        return next(fit_logistic(data, penalties))
    scores: list[float] = []
    starts: list[LinearClassifier] = []
    for fits in zip(
        *(fit_logistic(fitted, penalties, None, COARSE_ITERATIONS, COARSE) for fitted, _ in pairs), strict=True
    ):
        answers = [fit.answers(asked) for fit, (_, asked) in zip(fits, pairs, strict=True)]
        scores.append(score(torch.stack(answers).sum(dim=0)))
        starts.append(fits[0])
    best = scores.index(max(scores))
    return next(fit_logistic(data, [penalties[best]], starts[best]))


def _divided(data: Examples, held_out: Iterable[Tensor]) -> list[tuple[Examples, Examples]]:
    """The rows that are not held out, and those that are."""
    return [(data.counting(data.weights * ~held), data.counting(data.weights * held)) for held in held_out]


def fit_classes(cells: Cells) -> LinearMap:
    """The linear map to class scores [K] with the least penalised cross-entropy over pixels.

    The penalty is the one with the largest mean IoU on held-out pictures, see `held_out_parts`.

    Args:
        cells: targets are shares of the classes. A class that no training pixel shows is never the answer.
    """
    axes = principal_axes(cells.features, cells.weights)
    shown = (cells.targets > 0).any(dim=0).nonzero()[:, 0]
    data = Examples(axes.coordinates(cells.features), cells.targets[:, shown], cells.weights, len(shown))
    found = chosen_classifier(data, PENALTIES, _divided(data, held_out_parts(cells.pictures, ENOUGH)), mean_overlap)
    weight = torch.zeros(cells.targets.shape[1], cells.features.shape[1])
    bias = torch.full((cells.targets.shape[1],), NEVER)
    weight[shown], bias[shown] = axes.weights(found.weight), found.bias
    return LinearMap(axes.mean, weight, bias)


def logistic_accuracy(
    train: Labelled,
    queries: Labelled,
    validation: Labelled | None = None,
    strengths: float | Sequence[float] = STRENGTHS,
    seed: int = 0,
) -> float:
    """Accuracy of a multinomial logistic regression with a penalty chosen on held-out training pictures.

    Features are centred and divided by the root of their total variance over `train`, so neither scale nor rotation nor
    repeated channels change anything.

    Args:
        train: what the classifier is fitted on. All features are on one device.
        queries: what it is measured on.
        validation: what the penalty is chosen on. None: parts of `train`, while the others are fitted, see
            `held_out_parts`; then all of `train` is fitted again.
        strengths: one or several inverse strengths of the penalty that are tried, C of scikit-learn.
        seed: names the division into parts.

    Raises:
        ValueError: fewer than two classes to tell apart, or no strength.
    """
    classes, targets = train.labels.unique(return_inverse=True)
    if len(classes) < 2:
        raise ValueError("logistic regression needs training pictures of at least two classes")
    tried = sorted([strengths] if isinstance(strengths, int | float) else strengths)
    if not tried or tried[0] <= 0:
        raise ValueError(f"logistic regression needs positive strengths to choose from, got {tried}")
    axes = principal_axes(train.features)
    data = _examples(axes.coordinates(train.features), targets, len(classes))
    if validation is None:
        pairs = _divided(data, _random_parts(train, seed))
    else:
        known = validation[torch.isin(validation.labels, classes)]
        places = torch.searchsorted(classes, known.labels)
        pairs = [(data, _examples(axes.coordinates(known.features), places, len(classes)))]
    penalties = [1 / (strength * len(train)) for strength in tried]
    found = chosen_classifier(data, penalties, pairs, share_right)
    answers = classes[found.logits(axes.coordinates(queries.features)).argmax(dim=1)]
    return float((answers == queries.labels).double().mean())


def _examples(inputs: Tensor, targets: Tensor, classes: int) -> Examples:
    return Examples(inputs, targets, torch.ones(len(inputs), dtype=inputs.dtype, device=inputs.device), classes)


def _random_parts(train: Labelled, seed: int) -> list[Tensor]:
    order = torch.randperm(len(train), generator=torch_generator(seed, "held-out parts"))
    held_out = held_out_parts(torch.arange(len(train)), ENOUGH_ROWS)
    return [held[order].to(train.labels.device) for held in held_out]
