"""Delta_m as a column of the table of results."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from eyespot.evaluate.protocols.multitask.delta import LOWER_IS_BETTER, delta_m
from eyespot.evaluate.results import Column, Metric, ResultTable

TASK = "multitask"
DELTA_M = Column(TASK, Metric("Delta_m", unit=""))
"""In per cent, as papers print it; unbounded, so no share."""


def with_delta_m(table: ResultTable, single: Collection[str]) -> ResultTable:
    """The table with a column Delta_m, against the single-task models in it.

    Args:
        table: measured by `evaluate` on the task "multitask".
        single: names of the rows that are single-task models of the same backbone, one per task.

    Returns:
        The same table if there are no such rows. Models that lack one of the tasks get no value.
    """
    keys = [column.key for column in table.columns if column.task == TASK]
    baseline = {key: value for name in single for key in keys if (value := table.rows[name].get(key)) is not None}
    if not baseline:
        return table
    lower = [f"{TASK}/{key}" for key in LOWER_IS_BETTER]
    rows = {}
    for name, row in table.rows.items():
        measured = {key: value for key in baseline if (value := row.get(key)) is not None}
        complete = measured.keys() == baseline.keys() and all(baseline.values())
        rows[name] = {**row, DELTA_M.key: delta_m(measured, baseline, lower) if complete else None}
    return replace(table, columns=[*table.columns, DELTA_M], rows=rows)
