"""Boundaries: the F-measure at the best threshold of the whole set (ODS), in Python.

The protocol of Martin, Fowlkes and Malik ("Learning to detect natural image boundaries", PAMI 2004), as the multi-task
papers use it: thin the prediction to its crests, binarise it at many thresholds, match its pixels with those of the
truth one to one within a small distance, and pool the counts of all pictures. SAK runs a MATLAB implementation
(SEISM); ours differs in details of non-maximum suppression, so numbers are comparable among themselves, and close to
published ones, but not the same to the last digit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from eyespot.data.labelled.thinning import thinned_maps
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

    Only the size of the matching is counted, so any largest one will do: the published assignment prefers near pairs,
    which changes the pairs but not their number (it weighs a pixel without partner far above any distance).

    Args:
        probability: of a boundary, [H, W] in [0, 1].
        truth: 1, 0, or `IGNORE`, where predictions do not count; [H, W].
        thresholds: ascending, [T].
        max_distance: between a predicted and a true pixel, as a share of the diagonal.
    """
    crest = np.where(truth == IGNORE, 0.0, crests(probability))
    above = [np.count_nonzero(crest >= threshold) for threshold in thresholds]
    _, firsts, of_first = np.unique(above, return_index=True, return_inverse=True)  # many thresholds leave the same
    lines = thinned_maps(crest >= thresholds[firsts, None, None])
    drawn: np.ndarray = np.any(lines, axis=0)
    pairs = near_pairs(drawn, truth == 1, max_distance * float(np.hypot(*truth.shape)))
    row_of = np.cumsum(drawn).reshape(drawn.shape) - 1
    rows = [row_of[line] for line in lines]
    matched = np.array([np.count_nonzero(found) for found in matched_rows([pairs[some] for some in rows])])
    predicted = np.array([len(some) for some in rows])
    true = np.full(len(thresholds), np.count_nonzero(truth == 1))
    return BoundaryCounts(matched[of_first], predicted[of_first], true)


def crests(probability: np.ndarray, sigma: float = SIGMA) -> np.ndarray:
    """Non-maximum suppression: values that neither neighbour across the boundary exceeds; 0 elsewhere, [H, W].

    Across is where the smoothed map bends most, up or down (an eigenvector of its second derivatives); the neighbours
    lie one pixel away and are interpolated bilinearly. Plateaus stay, thinning makes lines of them.
    """
    from scipy.ndimage import gaussian_filter, map_coordinates

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
    from scipy.sparse import csr_array
    from scipy.spatial import cKDTree

    points = [np.argwhere(pixels) for pixels in (one, other)]
    shape = (len(points[0]), len(points[1]))
    if 0 in shape:
        return csr_array(shape, dtype=np.int8)
    trees = [cKDTree(part) for part in points]
    found = trees[0].sparse_distance_matrix(trees[1], distance + _ROUNDING, output_type="ndarray")
    return csr_array((np.ones(len(found), dtype=np.int8), (found["i"], found["j"])), shape=shape)


def matched_rows(pairs: Sequence[Any]) -> list[np.ndarray]:
    """Which rows a largest matching uses, in which no row and no column is used twice; for each of several problems.

    By maximum flow (Dinic) in one graph of all problems, every pixel of capacity 1. Scipy's
    `maximum_bipartite_matching` takes exponential time on chains, as boundaries are (scipy issue 26147).

    Args:
        pairs: scipy CSR arrays [N_i, M], non-zero where a row and a column may be paired.

    Returns:
        Bool [N_i] for each.
    """
    from scipy.sparse import block_diag, csr_array
    from scipy.sparse.csgraph import maximum_flow

    graph = block_diag(pairs, format="coo")
    rows, columns = graph.shape
    source, sink = rows + columns, rows + columns + 1
    starts = np.concatenate([np.full(rows, source), graph.row, np.arange(rows, source)])
    ends = np.concatenate([np.arange(rows), rows + graph.col, np.full(columns, sink)])
    capacities = csr_array((np.ones(len(starts), dtype=np.int32), (starts, ends)), shape=(sink + 1, sink + 1))
    flow = maximum_flow(capacities, source, sink, method="dinic").flow
    from_source = slice(flow.indptr[source], flow.indptr[source + 1])
    used = np.zeros(rows, dtype=bool)
    used[flow.indices[from_source]] = flow.data[from_source] > 0
    return np.split(used, np.cumsum([part.shape[0] for part in pairs])[:-1])
