"""Any protocol as a curve over input sizes: where a model stops profiting from larger pictures, or switches its mode.

EUPE's third stage, training at several sizes, is there for such curves (paper notes, B.3 and C); encoders that were
trained at several sizes in other ways are known to change abruptly between them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from eyespot.encoders.base import Encoder
from eyespot.evaluate.cost import MACS
from eyespot.evaluate.progress import Progress
from eyespot.evaluate.results import Column, Metric, ResultTable
from eyespot.evaluate.run_tasks import evaluate, floor_of, loaded, named_models, open_all
from eyespot.evaluate.tasks import TASKS
from eyespot.pictures import ImageSize
from eyespot.specs import lookup


@dataclass(frozen=True)
class CurvePoint:
    """What a model reached at one input size, and what that took.

    Attributes:
        size: (height, width) in pixels.
        values: by the metric's name.
        gmacs: 10^9 multiply-accumulates per picture, see `cost.giga_macs`.
    """

    size: ImageSize
    values: dict[str, float | None]
    gmacs: float | None = None


@dataclass(frozen=True)
class ResolutionCurve:
    """A task's results over input sizes.

    Attributes:
        task: its name.
        metrics: of the task.
        sizes: (height, width) as asked for, ascending.
        points: for each model one point per size, at the size that it really got (rounded to its stride); for a model
            that takes one size only, the one point at that size.
        fixed: the models that take one size only.
        settings: how it was measured, for the record.
        floor: what the constant answer is worth, by the metric's name; the same at all sizes.
    """

    task: str
    metrics: tuple[Metric, ...]
    sizes: tuple[ImageSize, ...]
    points: dict[str, list[CurvePoint]]
    fixed: frozenset[str] = frozenset()
    settings: dict[str, Any] = field(default_factory=dict)
    floor: dict[str, float | None] = field(default_factory=dict)

    def line(self, model: str, metric: str) -> tuple[list[float], list[float]]:
        """For a plot: sides in pixels (the root of the area), ascending without repetition, and the values there."""
        known = {
            (point.size[0] * point.size[1]) ** 0.5: value
            for point in self.points[model]
            if (value := point.values[metric]) is not None
        }
        return list(known), list(known.values())

    def table(self) -> ResultTable:
        """A row per model, columns per size; models of one size have their values in columns of their own."""
        places = [_shown(size) for size in self.sizes] + (["native"] if self.fixed else [])
        columns = [Column(f"{self.task}@{place}", metric) for metric in self.metrics for place in places]
        rows: dict[str, dict[str, float | None]] = {}
        for model, points in self.points.items():
            own = places[-1:] if model in self.fixed else places
            named = zip(own, points, strict=False)  # "native" has no point where the model takes any size
            rows[model] = {
                f"{self.task}@{place}/{name}": value for place, point in named for name, value in point.values.items()
            }
        floor = {column.key: self.floor.get(column.metric.name) for column in columns} if self.floor else {}
        return ResultTable(columns, rows, self.settings, floor)

    def to_json(self) -> str:
        """Everything; `from_json` reads it back."""
        return json.dumps({**asdict(self), "fixed": sorted(self.fixed)}, indent=2, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> ResolutionCurve:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: it is something else.
        """
        return TypeAdapter(ResolutionCurve).validate_json(text)


def resolution_curve(
    models: Sequence[str | Encoder] | Mapping[str, str | Encoder],
    task: str,
    data: Any = "toybox",
    sizes: Sequence[int | ImageSize] = (112, 224, 448),
    limit: int | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
    folder: str | Path | None = None,
) -> ResolutionCurve:
    """Measures frozen encoders on one task at several input sizes.

    Each model is loaded once and the data opened once; sizes that a model rounds to the same one are measured once, and
    a model that takes one size only is measured at that.

    Args:
        models: see `evaluate`.
        task: a name from `TASKS`.
        data: its data, see `evaluate`.
        sizes: sides in pixels, or (height, width).
        limit: see `evaluate`.
        seed: see `evaluate`.
        options: keyword arguments of the protocol, e.g. {"k": 20}.
        batch_size: pictures per forward pass.
        progress: called with (what is going on, measurements finished, measurements in all).
        folder: see `evaluate`.

    Raises:
        ValueError: no size, one twice, or as in `evaluate`.
        FileNotFoundError: see `evaluate`.
    """
    asked: list[ImageSize] = sorted({(size, size) if isinstance(size, int) else size for size in sizes})
    if not asked or len(asked) < len(sizes):
        raise ValueError(f"a curve needs at least one size, each once; got {list(sizes)}")
    metrics = lookup(TASKS, task, "task").metrics
    named = named_models(models)
    opened = open_all({task: TASKS[task]}, {task: data}, limit, seed)[task]
    points: dict[str, list[CurvePoint]] = {}
    fixed = set()
    for number, (name, model) in enumerate(named.items()):
        encoder = loaded(model, with_head=task == "classification")
        if encoder.native_size is not None:
            fixed.add(name)
        taken = [encoder.fitting_size(size) for size in asked]
        found: dict[ImageSize, CurvePoint] = {}
        for place, size in enumerate(taken):
            if size in found:
                continue
            table = evaluate(
                {name: encoder},
                (task,),
                {task: opened},
                size,
                limit,
                seed,
                {task: options or {}},
                batch_size,
                _part(progress, _shown(size), number * len(asked) + place, len(named) * len(asked)),
                folder,
                floor=False,
            )
            row = table.rows[name]
            values = {metric.name: _finite(row.get(f"{task}/{metric.name}")) for metric in metrics}
            found[size] = CurvePoint(size, values, row[MACS.key])
        points[name] = [found[size] for size in (taken[:1] if name in fixed else taken)]
    if progress is not None:
        progress("done", len(named) * len(asked), len(named) * len(asked))
    settings = {"data": str(data), "limit": limit, "seed": seed, "options": dict(options or {})}
    floor = {key.partition("/")[2]: value for key, value in floor_of(task, opened).items()}
    return ResolutionCurve(task, metrics, tuple(asked), points, frozenset(fixed), settings, floor)


def _part(progress: Progress | None, size: str, before: int, total: int) -> Progress | None:
    """The progress of one call of `evaluate` within that of all."""
    if progress is None:
        return None

    def report(what: str, finished: int, _: int) -> None:
        if what != "done":
            progress(f"{size} px, {what}", before + finished, total)

    return report


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _shown(size: ImageSize) -> str:
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"
