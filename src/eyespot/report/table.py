"""A result table laid out for a page: printed values, the best marked, bars that start at zero."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eyespot.evaluate.results import Column, ResultTable


@dataclass(frozen=True)
class Cell:
    """One value.

    Attributes:
        text: the value as printed, an en dash if there is none.
        best: whether it is the best of its column.
        share: length of its bar, 0 to 1 of the column's largest value.
    """

    text: str
    best: bool
    share: float


@dataclass(frozen=True)
class ColumnView:
    """One column.

    Attributes:
        task: its task.
        measure: metric and unit, e.g. "accuracy, %".
        better: "higher" or "lower".
        cells: one per model.
    """

    task: str
    measure: str
    better: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class TableView:
    """A whole table.

    Attributes:
        models: names of the rows.
        headline: the columns to show first.
        all: all columns.
        settings: how it was measured.
    """

    models: tuple[str, ...]
    headline: tuple[ColumnView, ...]
    all: tuple[ColumnView, ...]
    settings: Mapping[str, Any]


def table_view(table: ResultTable) -> TableView:
    """Lays out a result table; a value that is missing, NaN or infinite gets no bar."""
    headline, everything = (tuple(_column(table, column) for column in table.shown(every)) for every in (False, True))
    return TableView(tuple(table.rows), headline, everything, table.settings)


def _column(table: ResultTable, column: Column) -> ColumnView:
    metric, best = column.metric, table.best(column)
    values = {model: row.get(column.key) for model, row in table.rows.items()}
    longest = max((value for value in values.values() if value is not None and math.isfinite(value)), default=0.0)
    cells = tuple(Cell(metric.format(value), model in best, _share(value, longest)) for model, value in values.items())
    measure = f"{metric.name}, {metric.unit}" if metric.unit else metric.name
    return ColumnView(column.task, measure, "higher" if metric.higher_is_better else "lower", cells)


def _share(value: float | None, longest: float) -> float:
    if value is None or not math.isfinite(value) or longest <= 0:
        return 0.0
    return max(0.0, value / longest)
