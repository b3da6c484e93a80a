"""`evaluate`: several models, several tasks, one table."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from eyespot.encoders.base import Encoder
from eyespot.evaluate.datasets import ToyboxConfig, ToyboxData
from eyespot.evaluate.extract import FeatureBank
from eyespot.evaluate.results import Column, Metric, ResultTable
from eyespot.evaluate.tasks import DEFAULT_TASKS, TASKS, Task

Progress = Callable[[str, int, int], None]
PARAMETERS = Column("cost", Metric("params", unit="M", higher_is_better=False))


def evaluate(
    models: Sequence[str | Encoder] | Mapping[str, Encoder],
    tasks: Sequence[str] = DEFAULT_TASKS,
    data: str | ToyboxConfig | Mapping[str, Any] = "toybox",
    size: int | tuple[int, int] | None = None,
    limit: int | None = None,
    seed: int = 0,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> ResultTable:
    """Measures frozen encoders on tasks. Equal arguments give equal numbers on one machine; rows do not interact.

    Args:
        models: specs for `load_encoder`, encoders, or named encoders.
        tasks: names from `TASKS`, in the order of the columns.
        data: "toybox", "toybox:COUNT@SIZE" or a `ToyboxConfig` for all tasks; or for each task its own: one of those,
            a folder in the layout that the task's reader expects, "FOLDER?option=value" with the reader's options, or
            data that is already open.
        size: encoders without a native size get the pictures at this size (a side, or height and width), rounded to
            a multiple of their stride; at their own default size if None.
        limit: at most this many pictures (matching: pairs) per split, for a quick look.
        seed: names every random draw of every probe, and the toybox's scenes unless `data` is a `ToyboxConfig`.
        options: for each task, keyword arguments of its protocol, e.g. {"knn": {"k": 20}}.
        batch_size: pictures per forward pass.
        progress: called with (what is going on, tasks finished, tasks in all).

    Returns:
        A table with one row per model: parameters, then the metrics of each task.

    Raises:
        ValueError: unknown tasks or options (the message names the nearest right one), two models of one name, a task
            without data.
        FileNotFoundError: a data set that is not laid out as expected.
    """
    chosen = {name: _lookup(name, TASKS, "task") for name in tasks}
    if not chosen:
        raise ValueError(f"no task to run; there are {', '.join(TASKS)}")
    arguments = _task_arguments(chosen, options or {})
    named = _named_models(models)
    sources = _task_sources(chosen, data)
    opened = _open_all(chosen, sources, limit, seed)
    total = len(named) * len(chosen)
    rows: dict[str, dict[str, float | None]] = {}
    for name, model in named.items():
        report = _reporter(progress, name, len(rows) * len(chosen), total)
        encoder = _loaded(model)
        bank = FeatureBank(encoder, size, batch_size)
        rows[name] = {PARAMETERS.key: _parameters(encoder), **_run_all(bank, chosen, opened, arguments, seed, report)}
    if progress is not None:
        progress("done", total, total)
    columns = [PARAMETERS, *(Column(name, metric) for name, task in chosen.items() for metric in task.metrics)]
    settings = {"data": {name: str(source) for name, source in sources.items()}, "size": size, "limit": limit}
    return ResultTable(columns, rows, {**settings, "seed": seed, "options": arguments})


def _run_all(
    bank: FeatureBank,
    tasks: Mapping[str, Task],
    opened: Mapping[str, Any],
    arguments: Mapping[str, Mapping[str, Any]],
    seed: int,
    report: Callable[[str, int], None],
) -> dict[str, float]:
    """All tasks on one encoder. Those on patches go first: tasks on summaries then find the features there."""
    row: dict[str, float] = {}
    for finished, name in enumerate(sorted(tasks, key=lambda name: not tasks[name].patches)):
        bank.progress = lambda done, count, name=name, finished=finished: report(
            f"{name}, features {done}/{count}", finished
        )
        report(name, finished)
        found = tasks[name].run(bank, opened[name], seed=seed, **arguments[name])
        row.update({f"{name}/{metric}": value for metric, value in found.items()})
    return row


def _reporter(progress: Progress | None, model: str, before: int, total: int) -> Callable[[str, int], None]:
    def report(what: str, finished: int) -> None:
        if progress is not None:
            progress(f"{model}: {what}", before + finished, total)

    return report


def _lookup(name: str, known: Mapping[str, Any], kind: str) -> Any:
    """`known[name]`, or an error that names the nearest right name."""
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known) or 'none'}"
    raise ValueError(f"no {kind} {name!r}; {hint}")


def _task_arguments(tasks: Mapping[str, Task], options: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    for name, wanted in options.items():
        task = _lookup(name, tasks, "chosen task")
        _check_keywords(wanted, task.run, ("bank", "data", "seed"), f"option of {name}")
    return {name: dict(options.get(name, {})) for name in tasks}


def _check_keywords(given: Iterable[str], function: Callable[..., Any], own: Iterable[str], kind: str) -> None:
    known = {key: None for key in inspect.signature(function).parameters if key not in set(own)}
    for key in given:
        _lookup(key, known, kind)


def _named_models(models: Sequence[str | Encoder] | Mapping[str, Encoder]) -> dict[str, str | Encoder]:
    if isinstance(models, str | Encoder):
        raise ValueError("pass several models, or a list of one: evaluate([model])")
    if isinstance(models, Mapping):
        named: dict[str, str | Encoder] = dict(models)
    else:
        pairs = [(model if isinstance(model, str) else model.name, model) for model in models]
        named = dict(pairs)
        if len(named) < len(pairs):
            raise ValueError("two models have one name; pass a mapping {name: encoder} to tell them apart")
    if not named:
        raise ValueError("there is no model to evaluate")
    return named


def _loaded(model: str | Encoder) -> Encoder:
    from eyespot.encoders import load_encoder

    return load_encoder(model) if isinstance(model, str) else model


def _parameters(encoder: Encoder) -> float | None:
    """Millions of parameters; None where they are hidden inside another runtime (an ONNX file)."""
    count = sum(parameter.numel() for parameter in encoder.parameters())
    return count / 1e6 if count else None


def _task_sources(tasks: Mapping[str, Task], data: str | ToyboxConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Where each task's data comes from."""
    if not isinstance(data, Mapping):
        if isinstance(data, str) and not _is_toybox(data):
            example = " ".join(f"{name}=FOLDER" for name in tasks)
            raise ValueError(f"data {data!r}: give each task its own folder ({example}), or toybox")
        return dict.fromkeys(tasks, data)
    for name in data:
        _lookup(name, tasks, "chosen task")
    missing = [name for name in tasks if name not in data]
    if missing:
        raise ValueError(f"no data for {', '.join(missing)}; give a folder or 'toybox' for each task")
    return {name: data[name] for name in tasks}


def _open_all(tasks: Mapping[str, Task], sources: Mapping[str, Any], limit: int | None, seed: int) -> dict[str, Any]:
    """The data of each task. Equal toyboxes are one object, so that scenes are rendered and encoded once."""
    toyboxes: dict[ToyboxConfig, ToyboxData] = {}
    opened = {}
    for name, source in sources.items():
        if isinstance(source, str) and _is_toybox(source):
            source = ToyboxConfig.parse(source, limit, seed)
        if isinstance(source, ToyboxConfig):
            toybox = toyboxes.setdefault(source, ToyboxData(source))
            opened[name] = tasks[name].open_toybox(toybox)
        elif isinstance(source, str | Path):
            opened[name] = _open_folder(name, tasks[name], str(source), limit)
        else:
            opened[name] = source
    return opened


def _is_toybox(source: str) -> bool:
    return source == "toybox" or source.startswith("toybox:")


def _open_folder(name: str, task: Task, source: str, limit: int | None) -> Any:
    folder, _, query = source.partition("?")
    options = {key: _number(text) for key, text in parse_qsl(query, keep_blank_values=True)}
    _check_keywords(options, task.open_folder, ("folder", "limit"), f"option of the data of {name}")
    return task.open_folder(folder, limit=limit, **options)


def _number(text: str) -> float | int:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"options of a data folder are numbers, got {text!r}") from None
