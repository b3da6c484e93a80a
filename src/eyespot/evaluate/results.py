"""One table for all: rows are models, columns what was measured."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from eyespot.files import read_text, understood
from eyespot.tables import markdown_table

FLOOR = "constant answer (floor)"
"""How tables call the row of a model that always says the same."""
LOG_WIDTH, COLUMN_WIDTH = 160, 16


@dataclass(frozen=True)
class Metric:
    """What a column holds.

    Attributes:
        name: as the field writes it, e.g. "mIoU".
        unit: "%" for shares (the value itself lies in [0, 1]), "m", "M", or "" for a plain number.
        higher_is_better: which end is the good one.
        headline: False for numbers that only detailed tables show.
    """

    name: str
    unit: str = "%"
    higher_is_better: bool = True
    headline: bool = True

    def format(self, value: float | None) -> str:
        """The value as people read it; a dash where there is none."""
        if value is None or value != value:
            return "–"
        return f"{100 * value:.1f}" if self.unit == "%" else f"{value:.3g}" if value >= 100 else f"{value:.3f}"


@dataclass(frozen=True)
class Column:
    """A metric of a task; `key` names it in files."""

    task: str
    metric: Metric

    @property
    def key(self) -> str:
        """E.g. "segmentation/mIoU"."""
        return f"{self.task}/{self.metric.name}"


@dataclass(frozen=True)
class ResultTable:
    """Results of several models.

    Attributes:
        columns: in the order in which they are shown.
        rows: model name -> column key -> value. Shares are in [0, 1]; None or a missing key is an unknown value.
        settings: how it was measured (data, size, limit, seed), for the record.
        floor: column key -> value of the constant answer, see `protocols.constant`; shown as the last row. It is no
            model, so it is never the best.
    """

    columns: list[Column]
    rows: dict[str, dict[str, float | None]]
    settings: dict[str, Any] = field(default_factory=dict)
    floor: dict[str, float | None] = field(default_factory=dict)

    def best(self, column: Column) -> set[str]:
        """The models with the best value of a column; none if there are fewer than two values to compare."""
        values = {model: value for model, row in self.rows.items() if (value := row.get(column.key)) is not None}
        values = {model: value for model, value in values.items() if value == value}
        if len(values) < 2:
            return set()
        top = (max if column.metric.higher_is_better else min)(values.values())
        return {model for model, value in values.items() if value == top}

    def shown(self, detailed: bool = False) -> list[Column]:
        """All columns, or the headline ones."""
        return [column for column in self.columns if detailed or column.metric.headline]

    def to_json(self) -> str:
        """Everything; `from_json` reads it back. Unknown values are null."""
        rows = {model: _known_values(row) for model, row in self.rows.items()}
        columns = [{"task": column.task, **asdict(column.metric)} for column in self.columns]
        content = {"columns": columns, "rows": rows, "settings": self.settings, "floor": _known_values(self.floor)}
        return json.dumps(content, indent=2, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> ResultTable:
        """Reads what `to_json` wrote.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: it is something else; `read_table` says which file.
        """
        content = json.loads(text)
        columns = [Column(str(entry.pop("task")), _METRIC.validate_python(entry)) for entry in content["columns"]]
        floor = _ROW.validate_python(content.get("floor", {}))  # tables of older versions have none
        return ResultTable(columns, _ROWS.validate_python(content["rows"]), dict(content["settings"]), floor)

    def to_csv(self) -> str:
        """One line per model and for the floor, all columns, full precision; a first line with the column keys."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["model", *(column.key for column in self.columns)])
        for model, row in self._all_rows().items():
            values = [_known(row.get(column.key)) for column in self.columns]
            writer.writerow([model, *("" if value is None else repr(value) for value in values)])
        return text.getvalue()

    def to_markdown(self, detailed: bool = False) -> str:
        """A GitHub table, the best of each column in bold."""
        columns = self.shown(detailed)
        rows = [[model, *(self._cell(model, column, "**", "**") for column in columns)] for model in self._all_rows()]
        return markdown_table(["model", *(_title(column, " ") for column in columns)], rows) + "\n"

    def print(self, detailed: bool = False, console: Console | None = None) -> None:
        """Prints the table for people, the best of each column in bold; arrows say which end is good."""
        columns = self.shown(detailed)
        table = Table(box=SIMPLE_HEAD)
        table.add_column("model", overflow="fold", min_width=16)
        for column in columns:
            table.add_column(_title(column, "\n"), justify="right", no_wrap=True)
        for model in self._all_rows():
            name = model.replace("[", "\\[")
            table.add_row(name, *(self._cell(model, column, "[bold]", "[/bold]") for column in columns))
        (console or _default_console(len(columns))).print(table)

    def _all_rows(self) -> dict[str, dict[str, float | None]]:
        """The models' and, if there is one, the floor's."""
        return {**self.rows, FLOOR: self.floor} if self.floor else self.rows

    def _cell(self, model: str, column: Column, before: str, after: str) -> str:
        text = column.metric.format(self._all_rows()[model].get(column.key))
        return f"{before}{text}{after}" if model in self.best(column) else text


def read_table(path: str | Path) -> ResultTable:
    """Reads a results.json.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it holds something else; names it.
    """
    with understood(path, "measure again, into a new folder"):
        return ResultTable.from_json(read_text(path))


_METRIC = TypeAdapter(Metric)
_ROW = TypeAdapter(dict[str, int | float | None])
_ROWS = TypeAdapter(dict[str, dict[str, int | float | None]])


def _default_console(columns: int) -> Console:
    """The terminal; a log file has no width of its own, and there no column need be squeezed."""
    console = Console()
    return console if console.is_terminal else Console(width=LOG_WIDTH + COLUMN_WIDTH * max(0, columns - 8))


def _title(column: Column, joint: str) -> str:
    arrow = "↑" if column.metric.higher_is_better else "↓"
    return f"{column.task}{joint}{column.metric.name}{joint}{column.metric.unit} {arrow}".replace("  ", " ")


def _known_values(row: Mapping[str, float | None]) -> dict[str, float | None]:
    return {key: _known(value) for key, value in row.items()}


def _known(value: float | None) -> float | None:
    return None if value is None or value != value or value in (float("inf"), float("-inf")) else value
