"""Rows: one number for each view of each picture, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eyespot.data.loading.sampling import Draws


class RowNumbers:
    """Row = (pictures of earlier sources + number of the picture) * views + number of the view.

    Args:
        source_lengths: pictures per data source, in order.
        views: views per picture.
    """

    def __init__(self, source_lengths: Sequence[int], views: int) -> None:
        self.views = views
        self._offsets = np.concatenate([[0], np.cumsum(source_lengths)])

    @property
    def count(self) -> int:
        """How many rows there are."""
        return int(self._offsets[-1]) * self.views

    def __call__(self, source: np.ndarray, index: np.ndarray, view: np.ndarray) -> np.ndarray:
        """Row numbers int64 [n] of pictures and views, int64 [n] each."""
        return (self._offsets[source] + index) * self.views + view

    def draws(self, rows: np.ndarray, step: int = 0) -> Draws:
        """The pictures and views of rows int64 [n], as a loader takes them."""
        picture, view = np.divmod(rows, self.views)
        source = np.searchsorted(self._offsets, picture, side="right") - 1
        return Draws(step, source, picture - self._offsets[source], view)
