"""Ridge regression on the cells of patch maps, its penalty chosen on held-out training pictures."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eyespot.evaluate.probing.axes import PENALTIES, held_out_parts, principal_axes
from eyespot.evaluate.probing.cells import ENOUGH, Cells
from eyespot.evaluate.probing.probe import LinearMap


def fit_ridge(cells: Cells, bounds: tuple[float, float] = (-math.inf, math.inf)) -> LinearMap:
    """The linear map with the least mean squared error + penalty * |weight|^2 (over pixels; the bias is free).

    In closed form. The penalty is the one with the least error on held-out pictures, see `held_out_parts`; with it all
    cells are fitted again.

    Args:
        cells: targets are means over pixels.
        bounds: smallest and largest answer of the map; they change nothing in the fit.
    """
    axes = principal_axes(cells.features, cells.weights)
    inputs = axes.coordinates(cells.features)
    whole = _Moments.of(inputs, cells.targets, cells.weights)
    parts = []
    for held in held_out_parts(cells.pictures, ENOUGH):
        first, last = held.nonzero()[[0, -1], 0].tolist()
        rows = slice(first, last + 1)  # a part is one stretch of pictures, so nothing need be copied
        asked, truth, weights = inputs[rows], cells.targets[rows], cells.weights[rows]
        parts.append((whole.without(_Moments.of(asked, truth, weights)), asked, truth, weights))
    errors = [sum(_error(*rest.solved(penalty), *asked) for rest, *asked in parts) for penalty in PENALTIES]
    weight, bias = whole.solved(PENALTIES[errors.index(min(errors))])  # of equals the strongest
    return LinearMap(axes.mean, axes.weights(weight.float()), bias.float(), bounds)


def _error(weight: Tensor, bias: Tensor, inputs: Tensor, targets: Tensor, weights: Tensor) -> float:
    """Weighted sum of squared errors."""
    miss = inputs @ weight.float().T + bias.float() - targets
    return float((miss.square().sum(dim=1) * weights).double().sum())


class _Moments:
    """Sums over rows x [r], y [K] with weights: of the weights, of x, y, x x^T and x y^T, in float64."""

    def __init__(self, count: Tensor, x: Tensor, y: Tensor, xx: Tensor, xy: Tensor) -> None:
        self.sums = (count, x, y, xx, xy)

    @classmethod
    def of(cls, inputs: Tensor, targets: Tensor, weights: Tensor) -> _Moments:
        scaled = inputs * weights[:, None]
        return cls(
            weights.double().sum(),
            scaled.sum(dim=0, dtype=torch.float64),
            (targets * weights[:, None]).sum(dim=0, dtype=torch.float64),
            (scaled.T @ inputs).double(),
            (scaled.T @ targets).double(),
        )

    def without(self, part: _Moments) -> _Moments:
        """Those of the other rows."""
        return _Moments(*(all_of - some for all_of, some in zip(self.sums, part.sums, strict=True)))

    def solved(self, penalty: float) -> tuple[Tensor, Tensor]:
        """Weights [K, r] and bias [K] of the ridge regression."""
        count, x, y, xx, xy = self.sums
        mean, answer = x / count, y / count
        covariance = xx / count - mean[:, None] * mean
        factor = torch.linalg.cholesky(covariance + penalty * torch.eye(len(x), dtype=x.dtype))
        weight = torch.cholesky_solve(xy / count - mean[:, None] * answer, factor).T
        return weight, answer - weight @ mean
