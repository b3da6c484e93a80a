"""The coordinates in which the quick probes are fitted: principal axes of the training features, total variance one.

A penalty on the weights means the same there whatever the scale of the features, their rotation and how many channels
say the same, so probes of different encoders are fitted on equal terms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

LEAST_VARIANCE = 1e-9
"""Of the total. Axes with less are left out: the smallest penalty shrinks them to nothing."""
ROUNDING = 1e-12  # of the mean square; a variance below it is none
CHUNK = 2**22  # numbers that are looked at together (16 MiB)

PENALTIES = tuple(10.0**-power for power in range(-2, 8))
"""Penalties on the weights that are tried, from strong to weak, where the features' total variance is one.

All of them: what is held out may first do worse and then better, where loud channels say nothing and quiet ones much.
"""
PARTS = 5


@dataclass(frozen=True)
class Axes:
    """mean [D], and basis [D, r] that takes centred features to coordinates."""

    mean: Tensor
    basis: Tensor

    def coordinates(self, features: Tensor) -> Tensor:
        """[n, D] -> [n, r]."""
        found = features.new_empty(len(features), self.basis.shape[1])
        size = max(1, CHUNK // features.shape[1])
        for start in range(0, len(features), size):
            found[start : start + size] = (features[start : start + size] - self.mean) @ self.basis
        return found

    def weights(self, found: Tensor) -> Tensor:
        """Weights [K, r] of a linear map of the coordinates as those [K, D] of the centred features."""
        return found @ self.basis.T


def principal_axes(features: Tensor, weights: Tensor | None = None) -> Axes:
    """The axes of features.

    Args:
        features: [n, D]; of a set that is large on an accelerator, nothing is copied.
        weights: [n], how much each row counts; None for all alike.
    """
    count, width = features.shape
    share = torch.ones(count, device=features.device) if weights is None else weights
    share = share.to(features.dtype) / share.sum()
    mean = torch.zeros(width, dtype=torch.float64)
    for part, some in zip(_chunks(features), _chunks(share, width), strict=True):
        mean += (some @ part).cpu().double()
    centre = mean.to(features.dtype).to(features.device)
    if count < width:
        rows = (features - centre) * share.sqrt()[:, None]
        values, vectors = torch.linalg.eigh((rows @ rows.T).cpu().double())
        basis = rows.T.cpu().double() @ vectors / values.clamp(min=1e-300).sqrt()
    else:
        total = torch.zeros(width, width, dtype=torch.float64)
        for part, some in zip(_chunks(features), _chunks(share, width), strict=True):
            rows = (part - centre) * some.sqrt()[:, None]
            total += (rows.T @ rows).cpu().double()
        values, basis = torch.linalg.eigh(total)
    whole = float(values.clamp(min=0).sum())
    nothing = whole <= ROUNDING * float(mean.square().sum())
    kept = values > (math.inf if nothing else LEAST_VARIANCE * whole)
    basis = basis[:, kept].flip(1) / math.sqrt(whole or 1)
    return Axes(centre, basis.to(features.dtype).to(features.device))  # not all devices know float64


def _chunks(values: Tensor, width: int | None = None) -> tuple[Tensor, ...]:
    return values.split(max(1, CHUNK // (width or values.shape[1])))


def held_out_parts(groups: Tensor, enough: int) -> Iterator[Tensor]:
    """Which rows are held out, bool [n]: one fifth of the groups after the other.

    Neighbours stay together: pictures that follow one another in a film are nearly the same, and a probe that has seen
    one of them has seen the others.

    Args:
        groups: int64 [n], ascending: the picture of each row. If all are of one, the rows themselves are divided; of a
            single row nothing is held out.
        enough: groups that are held out, all parts together: of small data every fifth in turn, of large data one.
    """
    numbers = groups.unique_consecutive(return_inverse=True)[1]
    count = int(numbers[-1]) + 1
    if count == 1:
        numbers, count = torch.arange(len(groups), device=groups.device), len(groups)
    parts = min(PARTS, count) if count > 1 else 0
    for part in range(min(parts, max(1, math.ceil(enough * parts / count)))):
        yield (numbers * parts // count) == part
