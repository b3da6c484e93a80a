"""What `eyespot evaluate` does: models measured, at one size and as curves, and a folder with all that came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyespot.encoders import Encoder
from eyespot.evaluate import DEFAULT_TASKS, ResolutionCurve, ResultTable, evaluate, resolution_curve
from eyespot.evaluate.progress import Progress
from eyespot.evaluate.run_tasks import named_models
from eyespot.files import atomic_write_text
from eyespot.outputs import FolderKind, holds
from eyespot.report.pages.evaluation import EvaluationFigures, evaluation_page

EVALUATION_FOLDER = FolderKind("an evaluation", holds("measured/*.json", "features/*/setting.json"))


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        table: a row per model.
        curves: task -> its metrics over input sizes.
    """

    table: ResultTable
    curves: Mapping[str, ResolutionCurve]

    @property
    def tables(self) -> list[ResultTable]:
        """The table, and one of each curve."""
        return [self.table, *(curve.table() for curve in self.curves.values())]


def evaluate_and_report(
    models: Sequence[str | Encoder] | Mapping[str, str | Encoder],
    tasks: Sequence[str] | None = None,
    data: Any = "toybox",
    size: int | None = None,
    sizes: Sequence[int] = (),
    limit: int | None = None,
    seed: int = 0,
    timing: bool = True,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measures frozen encoders and writes a folder about it. Each model is in memory once, for numbers and figures.

    Args:
        models: see `eyespot.evaluate.evaluate`, as for all that is not explained here.
        tasks: by default those that `data` names, or five of them on the toybox.
        data: see there.
        size: see there.
        sizes: sides in pixels at each of which every task is measured as well.
        limit: see there.
        seed: see there.
        timing: see there.
        options: see there.
        output: folder for report.html, results.json, .csv and .md, a resolution-TASK.json per curve, features and
            finished measurements; the same call again continues an interrupted evaluation, and adds models or tasks
            without measuring anything twice. None writes nothing.
        progress: see there.

    Raises:
        ValueError, FileNotFoundError: see there.
        FileExistsError, NotADirectoryError: something else than an evaluation lies at `output`.
        InUseError: another process works in `output`.
    """
    tasks = tasks or (list(data) if isinstance(data, Mapping) else DEFAULT_TASKS)
    options, folder = options or {}, None if output is None else Path(output)
    models = named_models(models)
    with EVALUATION_FOLDER.work_in(folder):
        figures = EvaluationFigures(models, {"size": size, "seed": seed, "options": options}, folder)
        table = evaluate(
            models,
            tasks,
            data,
            size,
            limit,
            seed,
            options,
            progress=progress,
            folder=folder,
            timing=timing,
            visit=None if folder is None else figures.add,
        )
        curves = {
            task: resolution_curve(
                models,
                task,
                data[task] if isinstance(data, Mapping) else data,
                sizes,
                limit,
                seed,
                options.get(task),
                progress=progress,
                folder=folder,
            )
            for task in (tasks if sizes else ())
        }
        if folder is not None:
            for suffix, text in (("json", table.to_json()), ("csv", table.to_csv()), ("md", table.to_markdown())):
                atomic_write_text(folder / f"results.{suffix}", text)
            for task, curve in curves.items():
                atomic_write_text(folder / f"resolution-{task}.json", curve.to_json())
            evaluation_page(table, list(curves.values()), figures.finished()).write(folder / "report.html")
    return Evaluation(table, curves)
