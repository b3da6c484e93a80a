"""What two models have in common: CKA without its bias, and how well one's features predict the other's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
"""Ridge penalties that are tried, relative to the variance of one standardised input."""

LEAST_STD = 1e-3
"""Standard deviations below this share of the median channel's count as so large, so that dead channels stay quiet."""

ROUNDING = 1e-9  # relative; what is left of constant features after centring
FEWEST_ROWS = 4  # the estimate divides by n (n - 3)


def debiased_cka(first: Tensor, second: Tensor) -> float:
    """Linear CKA of two models' features of the same N samples, from unbiased estimates of HSIC.

    `feature_geometry.linear_cka` has the estimate of Kornblith et al. 2019, which comes out near 1 for anything if N is
    not well above the widths. Here the diagonals of both Gram matrices are left out (Song et al. 2012, JMLR 13, eq. 5;
    for CKA: Nguyen et al. 2021, arXiv 2010.15327, eq. 3), so that independent features give 0 on average at any N.
    Therefore it can be slightly negative. Samples count as independent of each other; cells of one picture are not
    quite.

    Args:
        first: [N, C1].
        second: [N, C2].

    Returns:
        1 for features that are equal up to a rotation and one factor; NaN if one model's features are the same for all.

    Raises:
        ValueError: different numbers of samples, or fewer than four.
    """
    if len(first) != len(second):
        raise ValueError(f"CKA compares features of the same samples, got {len(first)} and {len(second)}")
    if len(first) < FEWEST_ROWS:
        raise ValueError(f"this estimate of CKA needs at least {FEWEST_ROWS} samples, got {len(first)}")
    x, y = _centred(first), _centred(second)
    scale = _unbiased_hsic(x, x) * _unbiased_hsic(y, y)
    return _unbiased_hsic(x, y) / math.sqrt(scale) if scale > 0 else math.nan


def _unbiased_hsic(x: Tensor, y: Tensor) -> float:
    """The unbiased estimate of HSIC up to a factor of N alone, for linear kernels of centred features."""
    count = len(x)
    squares_x, squares_y = x.square().sum(1), y.square().sum(1)
    both = (x.T @ y).square().sum() - count / (count - 2) * (squares_x * squares_y).sum()
    return float(both + squares_x.sum() * squares_y.sum() / ((count - 1) * (count - 2)))


def _centred(features: Tensor) -> Tensor:
    """[N, C] float64 without its mean; exactly 0 where all that is left is rounding."""
    features = features.double()
    centred = features - features.mean(0)
    return centred if centred.abs().max() > ROUNDING * features.abs().max() else torch.zeros_like(centred)


@dataclass(frozen=True)
class RidgeData:
    """Rows of features [n, C] in three parts: to fit on, to choose the penalty on, to measure on."""

    fit: Tensor
    choose: Tensor
    test: Tensor

    @classmethod
    def by_picture(cls, features: Tensor) -> RidgeData:
        """Features [N, C] or maps [N, D, h, w] of N pictures: half of them to fit on, a quarter for each of the others.

        Every cell of a map becomes a row; the cells of a picture stay together in one part.

        Raises:
            ValueError: fewer than four pictures.
        """
        count = len(features)
        if count < FEWEST_ROWS:
            raise ValueError(f"{count} pictures are too few to fit, choose and test on; at least {FEWEST_ROWS} will do")
        parts = (features[: count // 2], features[count // 2 : count * 3 // 4], features[count * 3 // 4 :])
        return cls(*(part.double().movedim(1, -1).flatten(0, -2) for part in parts))

    def standardised(self) -> RidgeData:
        """Every channel with mean 0 and variance 1 in the part that is fitted on."""
        mean, std = self.fit.mean(0), self.fit.std(0, correction=0)
        std = std.clamp_min(max(1e-12, LEAST_STD * float(std.median())))
        return RidgeData(*((part - mean) / std for part in (self.fit, self.choose, self.test)))


def ridge_r2(
    inputs: RidgeData, targets: Mapping[str, RidgeData], strengths: Sequence[float] = STRENGTHS
) -> dict[str, float]:
    """How well a linear map from one model's features predicts others', on pictures it was not fitted on.

    Ridge regression on standardised channels (so that every channel of the target counts alike); for each target the
    penalty is the one of `strengths` that does best on the part to choose on.

    Args:
        inputs: rows [n, C].
        targets: by name, rows [n, C'] of the same samples.
        strengths: penalties to try, each relative to the variance of one input.

    Returns:
        R² by name on the part to test on: 1 is perfect, 0 as good as always saying the mean of the part that is fitted
        on, negative worse than that.
    """
    inputs = inputs.standardised()
    eigenvalues, axes = torch.linalg.eigh(inputs.fit.T @ inputs.fit / len(inputs.fit))
    fit, choose, test = (part @ axes for part in (inputs.fit, inputs.choose, inputs.test))
    found = {}
    for name, target in targets.items():
        wanted = target.standardised()
        products = fit.T @ wanted.fit / len(fit)
        maps = [products / (eigenvalues.clamp_min(0) + strength)[:, None] for strength in strengths]
        best = max(maps, key=lambda weights: _r2(choose @ weights, wanted.choose))
        found[name] = _r2(test @ best, wanted.test)
    return found


def _r2(predicted: Tensor, wanted: Tensor) -> float:
    """1 - residual over total sum of squares, of channels whose fitted mean is 0."""
    return 1 - float((wanted - predicted).square().sum() / wanted.square().sum().clamp_min(1e-30))
