"""Several result tables as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eyespot.evaluate.results import ResultTable

_Row = Mapping[str, float | None]
_VARYING = ("cost/ms",)  # differs from run to run


def merge_tables(tables: Mapping[str, ResultTable]) -> ResultTable:
    """Puts the rows of several tables into one; columns are those of all, in order of appearance.

    A row stays one row if all tables that have it agree: the same expert in two runs, or a model whose tasks were
    measured in two evaluations. Else each table's row is named after it: "runs-a: student". Words that are no spec of
    a model ("student") mean the same model only where values say so.

    Args:
        tables: name -> table.

    Returns:
        The table. A setting that differs is a mapping {name: value}.
    """
    if len(tables) == 1:
        return next(iter(tables.values()))
    columns = {column.key: column for table in tables.values() for column in table.columns}
    rows: dict[str, dict[str, float | None]] = {}
    for row in dict.fromkeys(name for table in tables.values() for name in table.rows):
        found = {name: table.rows[row] for name, table in tables.items() if row in table.rows}
        if _is_one(row, found):
            rows[row] = {key: value for part in reversed(found.values()) for key, value in part.items()}
        else:
            rows |= {f"{name}: {row}": dict(part) for name, part in found.items()}
    settings = _merged({name: table.settings for name, table in tables.items()})
    return ResultTable(
        list(columns.values()), rows, settings, _common_floor([table.floor for table in tables.values()])
    )


def _common_floor(floors: Sequence[_Row]) -> dict[str, float | None]:
    """The constant answers; none for a column where the tables' data have different ones."""
    found: dict[str, float | None] = {}
    for key in dict.fromkeys(key for floor in floors for key in floor):
        values = [floor[key] for floor in floors if key in floor]
        found[key] = values[0] if all(value == values[0] for value in values) else None
    return found


def differing(tables: Mapping[str, ResultTable]) -> list[str]:
    """Dotted names of the settings in which tables differ, e.g. "data.knn"."""
    settings = [_flat(table.settings) for table in tables.values()]
    keys = dict.fromkeys(key for one in settings for key in one)
    return [
        key
        for key in keys
        if any(one[key] != other[key] for one in settings for other in settings if _in(key, one, other))
    ]


def _in(key: str, *settings: Mapping[str, Any]) -> bool:
    return all(key in one for one in settings)


def _is_one(row: str, found: Mapping[str, _Row]) -> bool:
    parts = [{key: value for key, value in part.items() if key not in _VARYING} for part in found.values()]
    shared = [
        (one[key], other[key]) for one in parts for other in parts if one is not other for key in one.keys() & other
    ]
    if any(one != other for one, other in shared):
        return False
    return bool(shared) or "/" in row


def _merged(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One mapping of several, nested ones likewise; where values differ, {name: value}."""
    merged: dict[str, Any] = {}
    for key in dict.fromkeys(key for one in settings.values() for key in one):
        values = {name: one[key] for name, one in settings.items() if key in one}
        if all(isinstance(value, Mapping) for value in values.values()):
            merged[key] = _merged(values)
        else:
            first = next(iter(values.values()))
            merged[key] = first if all(value == first for value in values.values()) else values
    return merged


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
