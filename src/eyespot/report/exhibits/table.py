"""A result table laid out for a page: printed values, the best marked, bars that start at zero."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eyespot.evaluate.results import FLOOR, Column, ResultTable
from eyespot.evaluate.tasks import TASKS
from eyespot.report.exhibits.labels import short_labels

_COST = "parameters, multiply-accumulates and time of one picture"


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
        headline: whether it is among the columns to show first.
        cells: one per model, and the floor's last.
    """

    task: str
    measure: str
    better: str
    headline: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class TaskView:
    """All that was measured in one task.

    Attributes:
        name: of the task.
        about: what is done, in a line.
        setting: label -> value: data and options.
        columns: all its metrics, the headline ones first.
    """

    name: str
    about: str
    setting: Mapping[str, Any]
    columns: tuple[ColumnView, ...]

    @property
    def headline(self) -> tuple[ColumnView, ...]:
        """The metrics to show first; all if none is marked so."""
        return tuple(column for column in self.columns if column.headline) or self.columns


@dataclass(frozen=True)
class TableView:
    """A whole table.

    Attributes:
        models: label -> name of each row; the floor is the last, if there is one.
        headline: the columns to show first.
        tasks: everything, task by task.
        settings: how it was measured, beside data and options.
    """

    models: Mapping[str, str]
    headline: tuple[ColumnView, ...]
    tasks: tuple[TaskView, ...]
    settings: Mapping[str, Any]


def table_view(table: ResultTable) -> TableView:
    """Lays out a result table, cost last; a value that is missing, NaN or infinite gets no bar."""
    models = {label: name for name, label in short_labels(table.rows).items()}
    models |= {FLOOR: FLOOR} if table.floor else {}
    columns = sorted(table.columns, key=lambda column: column.task == "cost")
    headline = tuple(_column(table, column) for column in columns if column.metric.headline)
    settings = {key: value for key, value in table.settings.items() if key not in ("data", "options")}
    tasks = tuple(_task(table, task) for task in dict.fromkeys(column.task for column in columns))
    return TableView(models, headline, tasks, settings)


def _task(table: ResultTable, name: str) -> TaskView:
    about = _COST if name == "cost" else TASKS[name].about if name in TASKS else ""
    columns = sorted(
        (column for column in table.columns if column.task == name), key=lambda column: not column.metric.headline
    )
    sources, options = table.settings.get("data"), table.settings.get("options")
    source = sources.get(name) if isinstance(sources, Mapping) else sources if name != "cost" else None
    chosen = options.get(name) if isinstance(options, Mapping) else None
    setting = {"data": source, **(chosen if isinstance(chosen, Mapping) else {})}
    known = {label: value for label, value in setting.items() if value not in (None, "", {})}
    return TaskView(name, about, known, tuple(_column(table, column) for column in columns))


def _column(table: ResultTable, column: Column) -> ColumnView:
    metric, best = column.metric, table.best(column)
    values = {model: row.get(column.key) for model, row in table.rows.items()}
    values |= {FLOOR: table.floor.get(column.key)} if table.floor else {}
    longest = max((value for value in values.values() if value is not None and math.isfinite(value)), default=0.0)
    cells = tuple(Cell(metric.format(value), model in best, _share(value, longest)) for model, value in values.items())
    measure = f"{metric.name}, {metric.unit}" if metric.unit else metric.name
    better = "higher" if metric.higher_is_better else "lower"
    return ColumnView(column.task, measure, better, metric.headline, cells)


def _share(value: float | None, longest: float) -> float:
    if value is None or not math.isfinite(value) or longest <= 0:
        return 0.0
    return max(0.0, value / longest)
