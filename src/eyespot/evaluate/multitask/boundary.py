"""Boundaries: the F-measure at the best threshold of the whole set (ODS), in Python.

The protocol of Martin, Fowlkes and Malik ("Learning to detect natural image boundaries", PAMI 2004), as the multi-task
papers use it: thin the prediction to its crests, binarise it at many thresholds, match its pixels with those of the
truth one to one within a small distance, and pool the counts of all pictures. SAK runs a MATLAB implementation
(SEISM); ours differs in details of non-maximum suppression, so numbers are comparable among themselves, and close to
published ones, but not the same to the last digit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from eyespot.dense_tasks import IGNORE

THRESHOLDS = 99
SIGMA = 1.5
"""Pixels over which the orientation of a boundary is estimated; ours."""
_TIE = 1e-6  # relative; interpolated neighbours of a plateau are not exactly equal
_ROUNDING = 1e-9  # pixels; a distance of exactly the limit is within it


@dataclass(frozen=True)
class BoundaryCounts:
    """Boundary pixels of one picture or of many, per threshold; each int64 [T].

    Attributes:
        matched: pairs of a predicted and a true pixel. With one truth per picture this is both the number of predicted
            pixels that are right and that of true pixels that are found, which the published protocol counts apart.
        predicted: predicted pixels.
        true: true pixels.
    """

    matched: np.ndarray
    predicted: np.ndarray
    true: np.ndarray

    def __add__(self, other: BoundaryCounts) -> BoundaryCounts:
        return BoundaryCounts(self.matched + other.matched, self.predicted + other.predicted, self.true + other.true)

    @property
    def precision(self) -> np.ndarray:
        """Share of the predicted pixels that are matched, [T]; 0 where nothing is predicted."""
        return self.matched / np.maximum(self.predicted, 1)

    @property
    def recall(self) -> np.ndarray:
        """Share of the true pixels that are matched, [T]; 0 if there are none."""
        return self.matched / np.maximum(self.true, 1)

    @property
    def f_measure(self) -> np.ndarray:
        """Harmonic mean of the two, [T]."""
        return 2 * self.matched / np.maximum(self.predicted + self.true, 1)


class BoundaryF:
    """odsF: counts pooled over pictures, then the F-measure at the best threshold. A `DenseMetric`.

    Args:
        max_distance: see `DenseTask`.
        thresholds: how many, evenly spaced between 0 and 1, both excluded.
    """

    def __init__(self, max_distance: float, thresholds: int = THRESHOLDS) -> None:
        if thresholds < 1 or max_distance < 0:
            raise ValueError(
                f"odsF needs at least one threshold and a distance of 0 or more: {thresholds, max_distance}"
            )
        self.max_distance = max_distance
        self.thresholds = np.arange(1, thresholds + 1) / (thresholds + 1)
        self.counts = BoundaryCounts(*np.zeros((3, thresholds), dtype=np.int64))

    def update(self, output: Tensor, label: Tensor) -> None:
        """Counts logits [1, H, W] and true boundaries, uint8 [H, W]: 1, 0, or `IGNORE`."""
        probability = output[0].double().sigmoid().numpy()
        self.counts += boundary_counts(probability, label.numpy(), self.thresholds, self.max_distance)

    def compute(self) -> dict[str, float]:
        """The best F-measure, in [0, 1]; NaN if there was no true boundary."""
        return {"odsF": float(self.counts.f_measure.max()) if self.counts.true.any() else float("nan")}


def boundary_counts(
    probability: np.ndarray, truth: np.ndarray, thresholds: np.ndarray, max_distance: float
) -> BoundaryCounts:
    """Compares one picture's boundaries.

    Only the size of a matching is counted, so any matching of most pairs will do: one that also prefers near pairs, as
    the published assignment does, has no more of them.

    Args:
        probability: of a boundary, [H, W] in [0, 1].
        truth: 1, 0, or `IGNORE`, where predictions do not count; [H, W].
        thresholds: ascending, [T].
        max_distance: between a predicted and a true pixel, as a share of the diagonal.
    """
    from skimage.morphology import thin  # type: ignore[import-untyped]

    crest = np.where(truth == IGNORE, 0.0, crests(probability))
    candidates = crest >= thresholds[0]
    pairs = near_pairs(candidates, truth == 1, max_distance * float(np.hypot(*truth.shape)))
    row_of = np.cumsum(candidates).reshape(candidates.shape) - 1
    counts = np.zeros((2, len(thresholds)), dtype=np.int64)
    above = np.array([np.count_nonzero(crest >= threshold) for threshold in thresholds])
    for place, threshold in enumerate(thresholds):
        if place and above[place] == above[place - 1]:  # the same pixels as before
            counts[:, place] = counts[:, place - 1]
        elif above[place]:
            rows = row_of[thin(crest >= threshold)]
            counts[:, place] = matching_size(pairs[rows]), len(rows)
    return BoundaryCounts(*counts, np.full(len(thresholds), np.count_nonzero(truth == 1)))


def crests(probability: np.ndarray, sigma: float = SIGMA) -> np.ndarray:
    """Non-maximum suppression: values that neither neighbour across the boundary exceeds; 0 elsewhere, [H, W].

    Across is where the smoothed map bends most, up or down (an eigenvector of its second derivatives); the neighbours
    lie one pixel away and are interpolated bilinearly. Plateaus stay, thinning makes lines of them.
    """
    from scipy.ndimage import gaussian_filter, map_coordinates  # type: ignore[import-untyped]

    rows, columns, mixed = (
        gaussian_filter(probability, sigma, order=order, mode="nearest") for order in ((2, 0), (0, 2), (1, 1))
    )
    upwards = 0.5 * np.arctan2(2 * mixed, columns - rows)  # where it bends up most, as an angle from rightwards
    turned = np.where(rows + columns < 0, upwards + np.pi / 2, upwards)  # it bends down more than up: a quarter turn
    across = np.stack([np.sin(turned), np.cos(turned)])  # rows, columns
    place = np.indices(probability.shape)
    beside = [map_coordinates(probability, place + side * across, order=1, mode="nearest") for side in (-1, 1)]
    return np.where(probability >= np.maximum(*beside) * (1 - _TIE), probability, 0.0)


def near_pairs(one: np.ndarray, other: np.ndarray, distance: float) -> Any:
    """Which pixels of two maps, bool [H, W], lie within a distance of each other.

    Args:
        one: its pixels are the rows of the result, in row-major order.
        other: its pixels are the columns.
        distance: in pixels, between centres.

    Returns:
        A scipy CSR array of ones, [pixels of one, pixels of the other].
    """
    from scipy.sparse import csr_array  # type: ignore[import-untyped]
    from scipy.spatial import cKDTree  # type: ignore[import-untyped]

    points = [np.argwhere(pixels) for pixels in (one, other)]
    shape = (len(points[0]), len(points[1]))
    if 0 in shape:
        return csr_array(shape, dtype=np.int8)
    trees = [cKDTree(part) for part in points]
    found = trees[0].sparse_distance_matrix(trees[1], distance + _ROUNDING, output_type="ndarray")
    return csr_array((np.ones(len(found), dtype=np.int8), (found["i"], found["j"])), shape=shape)


def matching_size(pairs: Any) -> int:
    """The most pairs that can be chosen so that no row and no column is used twice (Hopcroft and Karp).

    Args:
        pairs: scipy CSR array, ones where a row and a column may be paired.
    """
    from scipy.sparse.csgraph import maximum_bipartite_matching  # type: ignore[import-untyped]

    if pairs.nnz == 0:
        return 0
    return int(np.count_nonzero(maximum_bipartite_matching(pairs, perm_type="column") >= 0))
