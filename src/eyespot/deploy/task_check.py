"""The check of an int8 file is a task check: what do k-NN, segmentation and depth lose?

Cosines near one say little about what a user loses; points of accuracy do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from eyespot.encoders.base import Encoder
from eyespot.encoders.frozen import load_frozen
from eyespot.evaluate import ToyboxConfig, evaluate
from eyespot.evaluate.progress import Progress
from eyespot.evaluate.results import Metric
from eyespot.evaluate.tasks import TASKS
from eyespot.tables import markdown_table

TASKS_OF_CHECK = ("knn", "segmentation", "depth")


@dataclass(frozen=True)
class TaskLoss:
    """One metric before and after.

    Attributes:
        task: e.g. "knn".
        metric: what is measured; says which end is good.
        before: value of the original; shares are in [0, 1].
        after: value of the exported file.
    """

    task: str
    metric: Metric
    before: float
    after: float

    @property
    def loss(self) -> float:
        """How much worse it became: points of a share, percent of any other number; negative for a gain."""
        worse = self.before - self.after if self.metric.higher_is_better else self.after - self.before
        if self.metric.unit == "%":
            return 100 * worse
        return 100 * worse / max(abs(self.before), 1e-9)

    def cells(self) -> list[str]:
        """Name, before, after and loss as people read them."""
        name = f"{self.task} {self.metric.name}" + (f", {self.metric.unit}" if self.metric.unit else "")
        unit = "points" if self.metric.unit == "%" else "%"
        shown = self.metric.format
        return [name, shown(self.before), shown(self.after), f"{self.loss:+.2f} {unit}"]


@dataclass(frozen=True)
class TaskCheck:
    """What an exported file loses.

    Attributes:
        losses: one entry per headline metric of each task.
        settings: how it was measured (data, size, limit, seed).
    """

    losses: list[TaskLoss]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def worst(self) -> TaskLoss:
        """The metric that loses most, points and percent on one scale."""
        return max(self.losses, key=lambda entry: entry.loss)

    def passed(self, max_loss: float) -> bool:
        """Whether no metric loses more than `max_loss` points (or percent, where it is no share)."""
        return self.worst.loss <= max_loss

    def to_json(self) -> str:
        """Everything; `from_json` reads it back."""
        losses = [{**asdict(entry), "loss": entry.loss} for entry in self.losses]
        return json.dumps({"losses": losses, "settings": self.settings}, indent=2)

    @staticmethod
    def from_json(text: str) -> TaskCheck:
        """Reads what `to_json` wrote."""
        content = json.loads(text)
        losses = [
            TaskLoss(entry["task"], Metric(**entry["metric"]), entry["before"], entry["after"])
            for entry in content["losses"]
        ]
        return TaskCheck(losses, content["settings"])

    def to_markdown(self) -> str:
        """A GitHub table, a row per metric."""
        rows = [entry.cells() for entry in self.losses]
        return markdown_table(["metric", "before", "after", "loss"], rows) + "\n"

    def print(self, console: Console | None = None) -> None:
        """Prints the table for people, the largest loss in bold."""
        table = Table("metric", box=SIMPLE_HEAD)
        for heading in ("before", "after", "loss"):
            table.add_column(heading, justify="right", no_wrap=True)
        for entry in self.losses:
            table.add_row(*entry.cells(), style="bold" if entry is self.worst else None)
        (console or Console()).print(table)


def task_check(
    before: Encoder | str,
    after: Encoder | str,
    data: str | ToyboxConfig | Mapping[str, Any] = "toybox",
    tasks: Sequence[str] = TASKS_OF_CHECK,
    size: int | tuple[int, int] | None = None,
    limit: int | None = None,
    seed: int = 0,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> TaskCheck:
    """Measures an encoder and its exported file by the same protocols, on the same pictures, with the same draws.

    A probe is trained on the features of each, as a user of the file would do; a loss is therefore that of the whole
    chain, with the noise of a short training in it: a few tenths of a point either way on small data.

    Args:
        before: the original, an encoder or a spec.
        after: the file, e.g. "onnx/out/model.onnx".
        data: see `evaluate`, as for `limit`, `seed`, `folder` and `progress`.
        tasks: names from `evaluate.TASKS`.
        size: see `evaluate`; where the file takes one size only, that one is used for both.
        limit: at most this many pictures per split.
        seed: names every random draw of every probe.
        options: for each task, keyword arguments of its protocol.
        folder: keeps features and finished measurements.
        progress: called with (what is going on, tasks finished, tasks in all).

    Raises:
        ValueError: `size` is another one than the file takes, the original does not take the file's size, or a task
            returned no value. See also `evaluate`.
    """
    original, exported = (load_frozen(model) if isinstance(model, str) else model for model in (before, after))
    common = _common_size(original, exported, size)
    models = {"before": original, "after": exported}
    table = evaluate(models, tasks, data, common, limit, seed, options, progress=progress, folder=folder, floor=False)
    losses = []
    for task in tasks:
        for metric in TASKS[task].metrics:
            values = [table.rows[name].get(f"{task}/{metric.name}") for name in models]
            if metric.headline and values[0] is not None and values[1] is not None:
                losses.append(TaskLoss(task, metric, values[0], values[1]))
    if not losses:
        raise ValueError(f"{', '.join(tasks)} gave no values for {original.name}; choose other tasks")
    return TaskCheck(losses, table.settings)


def _common_size(before: Encoder, after: Encoder, size: int | tuple[int, int] | None) -> int | tuple[int, int] | None:
    """The size at which both are measured."""
    native = after.native_size
    if native is None:
        return size if size is not None else before.default_size
    wanted = (size, size) if isinstance(size, int) else size
    if wanted not in (None, native):
        raise ValueError(f"{after.name} takes {native[0]}x{native[1]} only; measure at that size, or export another")
    problem = before.size_error(*native)
    if problem:
        raise ValueError(f"{before.name} {problem}, but its file was exported for {native[0]}x{native[1]}")
    return native
