"""The report of an evaluation: its table, and what the models make of pictures and of the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from eyespot.data.labelled.base import (
    ClassificationData,
    DepthData,
    MatchingData,
    NormalsData,
    Pictures,
    SegmentationData,
)
from eyespot.data.labelled.samples import MultiTaskPictures
from eyespot.data.loading.sampling import spread
from eyespot.data.sources.fingerprint import full_fingerprint
from eyespot.encoders import Encoder
from eyespot.encoders.lineage import Teacher, describe
from eyespot.evaluate.extraction import FeatureBank
from eyespot.evaluate.progress import Progress
from eyespot.evaluate.resolution import ResolutionCurve
from eyespot.evaluate.results import ResultTable
from eyespot.evaluate.run_tasks import loaded, open_all
from eyespot.evaluate.tasks import TASKS
from eyespot.outputs import check_output_file
from eyespot.report.exhibits.confusion import Confusion
from eyespot.report.exhibits.dense import Depth, Normals, Segmentation
from eyespot.report.exhibits.figures import AnyFigure
from eyespot.report.exhibits.gallery import Exhibit, Gallery
from eyespot.report.exhibits.labels import short_labels
from eyespot.report.exhibits.matches import Matches
from eyespot.report.exhibits.multitask import Answers, Routing
from eyespot.report.exhibits.neighbours import Neighbours
from eyespot.report.exhibits.seen import Seen, sizes_around
from eyespot.report.exhibits.sizes import resolution_figures
from eyespot.report.machine import machine_info
from eyespot.report.pages.html import Report
from eyespot.report.pages.licence_box import LicenceBox
from eyespot.report.pages.sheet import fitted_pictures

SIZE = 224
"""Shorter side in pixels at which encoders see pictures, where the evaluation names no size."""
_PHOTOS = 4
_NOT_LOADED = (ValueError, OSError, ImportError, RuntimeError)
_DENSE: tuple[tuple[type, Callable[..., Exhibit]], ...] = (
    (SegmentationData, Segmentation),
    (DepthData, Depth),
    (NormalsData, Normals),
)


@dataclass(frozen=True)
class Shown:
    """What was found by looking through models.

    Attributes:
        figures: what they see in photographs.
        examples: what they make of labelled data.
        licences: theirs, and those of what they were learnt from.
        notes: which models could not be loaded, and why.
    """

    figures: Sequence[AnyFigure] = ()
    examples: Sequence[AnyFigure] = ()
    licences: Sequence[LicenceBox] = ()
    notes: Sequence[str] = ()


def write_evaluation_report(
    path: str | Path,
    table: ResultTable,
    *,
    models: Mapping[str, str | Encoder] | None = None,
    data: Any = None,
    pictures: Tensor | None = None,
    curves: Sequence[ResolutionCurve] = (),
    folder: str | Path | None = None,
    title: str = "Evaluation",
    progress: Progress | None = None,
) -> Path:
    """Writes the page of an evaluation.

    Without `data` and `pictures` it shows table, radar and curves, and loads no model. With them it also shows PCA
    pictures, token norms, and, according to the data, nearest neighbours, segmentation, depth, normals and matches.
    Size, seed and options are those of the table's settings. One model at a time is in memory.

    Args:
        path: the HTML file to write.
        table: what `evaluate` returned.
        models: name of a row -> encoder or spec; names are taken as specs if None.
        data: what `evaluate` took: one source for all tasks, or task -> source or open data.
        pictures: [B, 3, H, W] in [0, 1]; some of the data's own if None.
        curves: what `resolution_curve` returned.
        folder: that of the evaluation: features in it are used, and trained probes' predictions kept there. Without
            it, features are extracted once more.
        title: heading of the page.
        progress: called with (what is going on, models finished, models in all).

    Returns:
        `path`.

    Raises:
        ValueError: a model that cannot take the pictures, or none that can be loaded (a single one is left out).
        FileNotFoundError: data that are not there.
        FileExistsError, IsADirectoryError: `path` is not ours to write over.
    """
    check_output_file(path)
    named = dict(models) if models is not None else {name: name for name in table.rows}
    shown = Shown()
    if data is not None or pictures is not None:
        shown = look_through(named, _opened(table, data), pictures, table.settings, folder, progress)
    evaluation_page(table, curves, shown, title).write(path)
    return Path(path)


def evaluation_page(
    table: ResultTable, curves: Sequence[ResolutionCurve] = (), shown: Shown | None = None, title: str = "Evaluation"
) -> Report:
    """The page of an evaluation, from what was measured and found."""
    shown = shown or Shown()
    return Report(
        title=title,
        summary=_summary(table),
        headline=table_facts(table),
        table=table,
        resolution=resolution_figures(curves),
        figures=shown.figures,
        examples=shown.examples,
        licences=shown.licences,
        machines={"this evaluation": machine_info()},
        notes=shown.notes,
    )


def _opened(table: ResultTable, data: Any) -> dict[str, Any]:
    """Task -> open data, for the tasks of the table."""
    tasks = [task for task in dict.fromkeys(column.task for column in table.columns) if task in TASKS]
    sources = data if isinstance(data, Mapping) else {} if data is None else dict.fromkeys(tasks, data)
    chosen = {task: TASKS[task] for task in sources}
    return open_all(chosen, sources, table.settings.get("limit"), table.settings.get("seed", 0))


def look_through(
    models: Mapping[str, str | Encoder],
    data: Mapping[str, Any],
    pictures: Tensor | None,
    settings: Mapping[str, Any],
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> Shown:
    """Shows models, one after the other, to pictures and data; see `write_evaluation_report`.

    Args:
        models: name -> encoder or spec.
        data: task -> opened data.
        pictures: [B, 3, H, W] in [0, 1], or None for some of the data's.
        settings: size, seed and options of the evaluation.
        folder: that of the evaluation, if it has one.
        progress: called with (what is going on, models finished, models in all).

    Raises:
        ValueError: none of the models can be loaded; says why for each.
    """
    shown = EvaluationFigures(models, settings, folder, pictures)
    notes = []
    for number, (name, label) in enumerate(shown.labels.items()):
        if progress is not None:
            progress(f"{label}: pictures for the report", number, len(models))
        try:
            encoder = loaded(models[name], with_head="classification" in data)
        except _NOT_LOADED as error:
            notes.append(f"{label} is not in the pictures, because it could not be loaded: {_first_line(error)}")
            continue
        shown.add(
            name,
            FeatureBank(encoder, settings.get("size"), folder=None if folder is None else Path(folder) / "features"),
            data,
        )
    if len(notes) == len(models):
        raise ValueError("\n".join(notes) or "there is no model to look at")
    return shown.finished(notes)


class EvaluationFigures:
    """Collects what a page shows of models, from one at a time.

    Args:
        models: names of all that will be added.
        settings: size, seed and options of the evaluation.
        folder: that of the evaluation, if it has one.
        pictures: see `look_through`.
    """

    def __init__(
        self,
        models: Iterable[str],
        settings: Mapping[str, Any],
        folder: str | Path | None = None,
        pictures: Tensor | None = None,
    ) -> None:
        self.labels = short_labels(models)
        self._settings, self._pictures = settings, pictures
        self._kept = None if folder is None else Path(folder) / "shown"
        self._seen, self._examples = Gallery([]), Gallery([])
        self._known: dict[str, tuple[Teacher, Sequence[Teacher]]] = {}

    def add(self, name: str, bank: FeatureBank, data: Mapping[str, Any]) -> None:
        """Shows one model to pictures and data, task -> opened data, which are the same for all."""
        if not self._known:
            self._prepare(data)
        label = self.labels[name]
        self._seen.add(label, bank)
        self._examples.add(label, bank)
        self._known[label] = (describe(bank.encoder), bank.encoder.lineage)

    def finished(self, notes: Sequence[str] = ()) -> Shown:
        """The figures of all models that were added."""
        return Shown(self._seen.figures(), self._examples.figures(), _licences(self._known), notes)

    def _prepare(self, data: Mapping[str, Any]) -> None:
        size = self._settings.get("size")
        side = SIZE if size is None else size if isinstance(size, int) else min(size)
        sizes = sizes_around(side)
        photos = self._pictures if self._pictures is not None else sample_pictures(data, max(side, *sizes))
        self._seen = Gallery([] if photos is None else [Seen(photos, side, sizes)])
        exhibits = exhibits_for(data, self._settings.get("seed", 0), self._settings.get("options", {}))
        self._examples = Gallery(exhibits, self._kept)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _licences(encoders: Mapping[str, tuple[Teacher, Sequence[Teacher]]]) -> list[LicenceBox]:
    """A box with all models, and one for each set of models that some were learnt from.

    Args:
        encoders: label -> facts, and facts of those that it was learnt from.
    """
    learners: dict[str, list[str]] = {}
    sources: dict[str, Sequence[Teacher]] = {}
    for label, (_, lineage) in encoders.items():
        if lineage:
            key = repr(sorted(entry["name"] for entry in lineage))
            learners.setdefault(key, []).append(label)
            sources[key] = lineage
    facts = [_inherited(own, lineage) for own, lineage in encoders.values()]
    own_box = LicenceBox("Models of this page", facts, judged=False, labels=list(encoders))
    return [own_box, *(LicenceBox(f"{', '.join(learners[key])}: learnt from", sources[key]) for key in sources)]


def _inherited(own: Teacher, lineage: Sequence[Teacher]) -> Teacher:
    """Facts of a model; what was learnt from others is under all their licences, unknown if one of them is."""
    licences = {entry["licence"] for entry in lineage}
    if not lineage:
        return own
    together = None if None in licences else " and ".join(sorted(licence for licence in licences if licence))
    return {**own, "licence": together}


def exhibits_for(data: Mapping[str, Any], seed: int, options: Mapping[str, Mapping[str, Any]]) -> list[Exhibit]:
    """What can be shown of data, by its kind; of several sets for classification the first."""
    found: list[Exhibit] = []
    for task, opened in data.items():
        if _has_neighbours(opened) and not any(isinstance(one, Neighbours) for one in found):
            found.append(Neighbours(opened))
        if task == "classification":
            found.append(Confusion(opened))
        if isinstance(opened, MatchingData):
            found.append(Matches(opened))
        chosen = options.get(task, {})
        if task == "multitask":
            found += [Answers(opened, options=chosen), Routing(opened)]
        found += [make(opened, seed=seed, options=chosen) for kind, make in _DENSE if isinstance(opened, kind)]
    return found


def _has_neighbours(opened: Any) -> bool:
    """Whether both splits have labels; data for zero-shot classification may have nothing to train on."""
    if not isinstance(opened, ClassificationData):
        return False
    return all(bool((split.labels >= 0).any()) for split in (opened.train, opened.val))


def _pictures_of(opened: Any) -> Pictures | None:
    """The validation pictures of a task's data; None where the data's kind has no such split."""
    if isinstance(opened, MatchingData):
        return opened.sources
    if hasattr(opened, "tasks") and hasattr(opened, "read"):
        return MultiTaskPictures(opened)
    found: Pictures | None = getattr(getattr(opened, "val", None), "pictures", None)
    return found


def sample_pictures(data: Mapping[str, Any], side: int) -> Tensor | None:
    """A few validation pictures [B, 3, H, W] of different data sets in turn, of one shape; None without data.

    Args:
        data: task -> opened data.
        side: their shorter side in pixels.
    """
    sources: dict[str, Pictures] = {}
    for opened in data.values():
        source = _pictures_of(opened)
        if source is not None:
            sources.setdefault(full_fingerprint(source), source)
    if not sources:
        return None
    each = [spread(len(source), _PHOTOS) for source in sources.values()]
    turns = [
        (source, order[turn])
        for turn in range(_PHOTOS)
        for source, order in zip(sources.values(), each, strict=True)
        if turn < len(order)
    ]
    return fitted_pictures([source.original(index) for source, index in turns[:_PHOTOS]], side)


def table_facts(table: ResultTable) -> dict[str, Any]:
    """The headline of a table: how many models and tasks, and who leads in most."""
    tasks = list(dict.fromkeys(column.task for column in table.columns if column.task != "cost"))
    facts: dict[str, Any] = {"models": len(table.rows), "tasks": len(tasks)}
    first = {column.task: column for column in reversed(table.shown()) if column.task != "cost"}
    wins = Counter(model for column in first.values() for model in table.best(column))
    if wins:
        model, count = wins.most_common(1)[0]
        facts["leads most often"] = f"{short_labels(table.rows)[model]}, in {count} of {len(first)}"
    return facts


def _summary(table: ResultTable) -> str:
    tasks = list(dict.fromkeys(column.task for column in table.columns if column.task != "cost"))
    return f"{len(table.rows)} frozen encoder{'s' if len(table.rows) != 1 else ''}, measured on {', '.join(tasks)}."
