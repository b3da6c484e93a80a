"""Reports from what lies in folders: training runs, and what `eyespot evaluate --output` wrote."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open

from eyespot.encoders.saved import MODEL_FILE, find_model_folder
from eyespot.evaluate.during_training import read_probes
from eyespot.evaluate.progress import Progress
from eyespot.evaluate.resolution import ResolutionCurve
from eyespot.evaluate.results import ResultTable, read_table
from eyespot.files import read_json, read_text, read_yaml, understood
from eyespot.outputs import check_output_file
from eyespot.report.exhibits.curves import read_metrics
from eyespot.report.exhibits.labels import is_spec, short_labels
from eyespot.report.exhibits.seen import sizes_around
from eyespot.report.exhibits.sizes import resolution_figures
from eyespot.report.machine import machine_info
from eyespot.report.pages.evaluation import SIZE, Shown, look_through, table_facts
from eyespot.report.pages.html import Report
from eyespot.report.pages.merge import differing, merge_tables
from eyespot.report.pages.sheet import read_pictures
from eyespot.report.pages.training import TrainingRun, run_sections


@dataclass(frozen=True)
class Contents:
    """What a folder holds.

    Attributes:
        path: where it is.
        table: its results.json, if any.
        run: what is known of a training run; None for an evaluation.
        curves: resolution*.json of an evaluation.
        models: label -> spec of the models in it: teachers, proxy, student, or those rows of an evaluation that are
            specs.
    """

    path: Path
    table: ResultTable | None = None
    run: TrainingRun | None = None
    curves: Sequence[ResolutionCurve] = ()
    models: Mapping[str, str] = field(default_factory=dict)


def write_folder_report(
    path: str | Path,
    folders: Sequence[str | Path],
    pictures: Sequence[str | Path] = (),
    size: int = SIZE,
    progress: Progress | None = None,
) -> Path:
    """Writes one page about training runs and evaluations: what `eyespot report FOLDER ...` does.

    Their tables become one, see `merge_tables`; training curves lie over each other; each run has its licence box. The
    models are loaded only to look at `pictures`; rows of an evaluation whose names are no specs cannot be.

    Args:
        path: the HTML file to write.
        folders: runs (config.yaml, metrics.jsonl, student/) and output folders of `eyespot evaluate` (results.json).
        pictures: picture files, for PCA pictures and token norms of all models.
        size: shorter side in pixels at which models see them; half of it and, up to 512, twice as much too.
        progress: see `write_evaluation_report`.

    Returns:
        `path`.

    Raises:
        FileNotFoundError: a folder that is neither.
        ValueError: no folder, the same one twice, or no model that can be loaded (a single one is left out).
        FileExistsError, IsADirectoryError: `path` is not ours to write over.
    """
    check_output_file(path)
    contents = [read_folder(folder) for folder in folders]
    named = dict(zip(_names([one.path for one in contents]), contents, strict=True))
    shown = Shown()
    if pictures:
        models = _models(named)
        photos = read_pictures(pictures, max(size, *sizes_around(size)))
        shown = look_through(models, {}, photos, {"size": size}, progress=progress)
    _report(named, shown).write(path)
    return Path(path)


def read_folder(folder: str | Path) -> Contents:
    """Reads the folder of a run or an evaluation.

    Raises:
        FileNotFoundError: it is neither; says what was looked for.
    """
    path = Path(folder)
    results, config = path / "results.json", path / "config.yaml"
    if not (results.is_file() or config.is_file()):
        raise FileNotFoundError(
            f"{path} is neither a training run (no config.yaml) nor an evaluation (no results.json, which "
            "`eyespot evaluate --output` writes)"
        )
    table = read_table(results) if results.is_file() else None
    curves = [_read_curve(file) for file in sorted(path.glob("resolution*.json"))]
    if not config.is_file():
        assert table is not None
        specs = {row: row for row in table.rows if is_spec(row)}
        return Contents(path, table, curves=curves, models=specs)
    settings, run = read_yaml(config), _read_run(path, read_text(config))
    with understood(config):
        return Contents(path, table, run, curves, _models_of_run(path, settings))


def _read_curve(file: Path) -> ResolutionCurve:
    with understood(file):
        return ResolutionCurve.from_json(read_text(file))


def _read_run(path: Path, config: str) -> TrainingRun:
    metrics, saved = path / "metrics.jsonl", path / "student" / "config.json"
    facts = read_json(saved) if saved.is_file() else {}
    with understood(saved):
        known = facts.get("eyespot", {})
        name = str(facts.get("architecture") or known["spec"]) if facts else ""
        teachers, machine = _TEACHERS.validate_python(known.get("teachers", [])), dict(known.get("machine", {}))
    return TrainingRun(
        config=config,
        students=[(name, _parameters(path))] if facts else [],
        teachers=teachers,
        records=read_metrics(metrics) if metrics.is_file() else {},
        probes=read_probes(path / "probes.jsonl"),
        machine=machine,
    )


_TEACHERS: TypeAdapter[list[Any]] = TypeAdapter(list[dict[str, Any]])


def _models_of_run(path: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Label -> spec of the teachers, the proxy if there is one, and the student if it is finished."""
    teachers = config.get("teachers") or []
    models = {label: spec for spec, label in short_labels(teachers).items()}
    proxies = [str(stage) for stage in sorted(path.glob("stage-*-proxy")) if (stage / "model").is_dir()]
    proxy = config.get("proxy") or ""
    if proxies or str(proxy).startswith("run/"):
        models["proxy"] = f"run/{proxies[-1]}" if proxies else str(proxy)
    if (path / "student").is_dir():
        models["student"] = f"run/{path}"
    return models


def _names(paths: Sequence[Path]) -> list[str]:
    """A short unique name per folder."""
    if not paths:
        raise ValueError("name at least one folder of a run or an evaluation")
    full = [path.resolve() for path in paths]
    if len(set(full)) < len(full):
        raise ValueError("the same folder is named twice")
    for parts in range(1, max(len(path.parts) for path in full)):
        names = ["/".join(path.parts[-parts:]) for path in full]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in full]


def _models(named: Mapping[str, Contents]) -> dict[str, str]:
    """Label -> spec, each spec once; labels that mean several models are named after their runs."""
    specs: dict[str, str] = {}
    meant: dict[str, set[str]] = {}
    for one in named.values():
        for label, spec in one.models.items():
            meant.setdefault(label, set()).add(spec)
    for name, one in named.items():
        for label, spec in one.models.items():
            specs.setdefault(spec, label if len(meant[label]) == 1 else f"{name}: {label}")
    return {label: spec for spec, label in specs.items()}


def _report(named: Mapping[str, Contents], shown: Shown) -> Report:
    runs = {name: one.run for name, one in named.items() if one.run is not None}
    tables = {name: one.table for name, one in named.items() if one.table is not None}
    table = merge_tables(tables) if tables else None
    title, summary = _words(named)
    sections = run_sections(runs, alone=len(named) == 1)
    return Report(
        title=title,
        summary=summary,
        table=table,
        resolution=resolution_figures(curve for one in named.values() for curve in one.curves),
        figures=shown.figures,
        notes=[*_notes(tables), *shown.notes],
        **{
            **sections,
            "headline": sections["headline"] | (table_facts(table) if table is not None else {}),
            "licences": shown.licences or sections["licences"],
            "machines": sections["machines"] or {"this page": machine_info()},
        },
    )


def _words(named: Mapping[str, Contents]) -> tuple[str, str]:
    """Title and summary: those of the model card for a single run, else what the page is about."""
    names = list(named)
    contents = list(named.values())
    card = contents[0].path / "student" / "README.md"
    if len(contents) == 1 and card.is_file():
        lines = [line for line in card.read_text(encoding="utf-8").splitlines() if line]
        heading = next((place for place, line in enumerate(lines) if line.startswith("# ")), None)
        if heading is not None and heading + 1 < len(lines):
            return lines[heading][2:], lines[heading + 1]
    runs = sum(one.run is not None for one in contents)
    counts = [
        f"{count} {what}{'s' if count > 1 else ''}"
        for count, what in ((runs, "training run"), (len(contents) - runs, "evaluation"))
        if count
    ]
    return ", ".join(names), f"{' and '.join(counts)}{' side by side' if len(contents) > 1 else ''}."


def _parameters(path: Path) -> int:
    """How many numbers the student's weight file holds, without reading them."""
    file = find_model_folder(path) / MODEL_FILE
    try:
        with safe_open(file, "pt") as weights:
            return sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged ({error})") from error


def _notes(tables: Mapping[str, ResultTable]) -> list[str]:
    different = differing(tables)
    if not different:
        return []
    return [
        f"The tables were measured under different settings ({', '.join(different)}): compare their rows with care."
    ]
