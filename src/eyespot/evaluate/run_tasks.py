"""`evaluate`: several models, several tasks, one table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from eyespot.data.sets import ToyboxConfig, ToyboxData, find_opener
from eyespot.data.toybox.spec import is_toybox
from eyespot.encoders.base import Encoder
from eyespot.evaluate.cost import COLUMN_KEYS, COLUMNS, cost
from eyespot.evaluate.extraction import FeatureBank
from eyespot.evaluate.finished import FinishedMeasurements
from eyespot.evaluate.nothing_to_tell import refuse_nothing_to_tell
from eyespot.evaluate.progress import Progress
from eyespot.evaluate.results import Column, Metric, ResultTable
from eyespot.evaluate.tasks import DEFAULT_TASKS, TASKS, EvaluationTask
from eyespot.specs import lookup, read_options, read_value

Visit = Callable[[str, FeatureBank, Mapping[str, Any]], None]
"""(name of a model, its features, opened data by task): looks at a model while it is in memory."""


def evaluate(
    models: Sequence[str | Encoder] | Mapping[str, str | Encoder],
    tasks: Sequence[str] = DEFAULT_TASKS,
    data: str | ToyboxConfig | Mapping[str, Any] = "toybox",
    size: int | tuple[int, int] | None = None,
    limit: int | None = None,
    seed: int = 0,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
    folder: str | Path | None = None,
    timing: bool = False,
    visit: Visit | None = None,
    floor: bool = True,
) -> ResultTable:
    """Measures frozen encoders on tasks. Equal arguments give equal numbers on one machine; rows do not interact.

    Args:
        models: specs for `load_encoder`, encoders, or either by name. Specs are loaded one after the other.
        tasks: names from `TASKS`, in the order of the columns.
        data: "toybox", "toybox:COUNT@SIZE" or a `ToyboxConfig` for all tasks; or for each task its own: one of those,
            a folder in the layout that the task's reader expects, "NAME:FOLDER" with a name from
            `datasets.DATASETS`, either of these with "?option=value" for its reader, or data that is already open.
        size: encoders without a native size get the pictures at this size (a side, or height and width), rounded to
            a multiple of their stride; at their own default size if None.
        limit: at most this many pictures (matching: pairs) per split, for a quick look.
        seed: names every random draw of every probe, and the toybox's scenes unless `data` is a `ToyboxConfig`.
        options: for each task, keyword arguments of its protocol, e.g. {"knn": {"k": 20}}.
        batch_size: pictures per forward pass.
        progress: called with (what is going on, tasks finished, tasks in all).
        folder: keeps features (`features/`) and finished measurements (`measured/`) there; the same call again, after
            an interruption or with further models and tasks, redoes nothing. None keeps features in memory.
        timing: whether to measure the milliseconds of a forward pass, the one number that differs from run to run.
        visit: called with the name of each model that has been measured, its features and the opened data of all tasks,
            while the model is in memory.
        floor: whether to measure the constant answer too, which reads the labels once more.

    Returns:
        A table with one row per model: its cost (see `cost`), then the metrics of each task; and the floor.

    Raises:
        ValueError: unknown tasks or options (the message names the nearest right one), two models of one name, a task
            without data, a size or limit below 1.
        FileNotFoundError: a model's file that is not there, or a data set that is not laid out as expected.
    """
    chosen = {name: lookup(TASKS, name, "task") for name in tasks}
    if not chosen:
        raise ValueError(f"no task to run; there are {', '.join(TASKS)}")
    arguments = task_arguments(chosen, options or {})
    named = named_models(models)
    sources = task_sources(chosen, data)
    _check_numbers(size=min(size) if isinstance(size, tuple) else size, limit=limit, batch_size=batch_size)
    early: Encoder | None = _first_loaded(named, with_head="classification" in chosen)
    opened = open_all(chosen, sources, limit, seed)
    total = len(named) * len(chosen)
    features, measured = (None, None) if folder is None else (Path(folder) / "features", Path(folder) / "measured")
    finished = FinishedMeasurements(measured)
    rows: dict[str, dict[str, float | None]] = {}
    for name, model in named.items():
        report = _reporter(progress, name, len(rows) * len(chosen), total)
        encoder = early or loaded(model, with_head="classification" in chosen)
        early = None
        bank = FeatureBank(encoder, size, batch_size, folder=features)
        tasks_of_row = _run_all(bank, chosen, opened, arguments, seed, report, finished)
        rows[name] = {**cost(encoder, size, timing), **tasks_of_row}
        if visit is not None:
            report("figures", len(chosen))
            bank.progress = None
            visit(name, bank, opened)
    if progress is not None:
        progress("done", total, total)
    measured_columns = [Column(name, metric) for name, task in chosen.items() for metric in task.metrics]
    measured_columns = [column for column in measured_columns if any(column.key in row for row in rows.values())]
    measured_columns += _further_columns(rows, {*COLUMN_KEYS, *(column.key for column in measured_columns)})
    columns = [*(COLUMNS if timing else COLUMNS[:-1]), *measured_columns]
    settings = {"data": {name: str(source) for name, source in sources.items()}, "size": size, "limit": limit}
    known = {column.key for column in columns}
    values = {key: value for name in chosen for key, value in floor_of(name, opened[name]).items()} if floor else {}
    constant = {key: value for key, value in values.items() if key in known}
    return ResultTable(columns, rows, {**settings, "seed": seed, "options": arguments}, constant)


def floor_of(task: str, data: Any) -> dict[str, float | None]:
    """What the constant answer is worth in a task, by column; nothing where a task has none."""
    function = TASKS[task].floor
    return {} if function is None else {f"{task}/{metric}": value for metric, value in function(data).items()}


def _further_columns(rows: Mapping[str, Mapping[str, Any]], known: set[str]) -> list[Column]:
    """Columns of what a protocol returned beyond its metrics because an option asked for it (another PCK, say)."""
    further = dict.fromkeys(key for row in rows.values() for key in row if key not in known)
    return [Column(task, Metric(name)) for task, _, name in (key.partition("/") for key in further)]


def task_options(entries: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Options of tasks as the command line takes them: "knn.k=20" -> {"knn": {"k": 20}}.

    Raises:
        ValueError: another form.
    """
    options: dict[str, dict[str, Any]] = {}
    for entry in entries:
        target, equals, text = entry.partition("=")
        task, dot, key = target.partition(".")
        if not (equals and dot and key):
            raise ValueError(f"--options {entry!r}: write TASK.KEY=VALUE, e.g. knn.k=20")
        options.setdefault(task, {})[key] = read_value(text)
    return options


def read_sources(entries: Sequence[str]) -> str | dict[str, str]:
    """`data` of `evaluate` as people write it: one source for all tasks, or TASK=FOLDER for each.

    Raises:
        ValueError: something else.
    """
    by_task = dict(entry.split("=", 1) for entry in entries if "=" in entry)
    plain = [entry for entry in entries if "=" not in entry]
    if len(plain) + bool(by_task) != 1:
        raise ValueError("data takes one source for all tasks, or TASK=FOLDER for each")
    return by_task or plain[0]


def _run_all(
    bank: FeatureBank,
    tasks: Mapping[str, EvaluationTask],
    opened: Mapping[str, Any],
    arguments: Mapping[str, Mapping[str, Any]],
    seed: int,
    report: Callable[[str, int], None],
    known: FinishedMeasurements,
) -> dict[str, float | None]:
    """All tasks on one encoder. Those on patches go first: tasks on summaries then find the features there."""
    row: dict[str, float | None] = {}
    setting = {"seed": seed, "size": bank.encoder.fitting_size(bank.size)}
    settings = {name: {**setting, **task.version, "options": arguments[name]} for name, task in tasks.items()}
    keys = {name: known.key(bank.encoder, name, opened[name], settings[name]) for name in tasks}
    measured = {name: known.find(key) for name, key in keys.items()}
    new = {name: task for name, task in tasks.items() if measured[name] is None}
    _refuse_unfit(bank.encoder, new, opened, arguments)
    for finished, name in enumerate(sorted(tasks, key=lambda name: not tasks[name].patches)):
        bank.progress = lambda done, count, name=name, finished=finished: report(f"{name} {done}/{count}", finished)
        report(name, finished)
        found = measured[name]
        if found is None:
            found = tasks[name].run(bank, opened[name], seed=seed, **arguments[name])
            known.keep(keys[name], bank.encoder.name, name, found)
        row.update({f"{name}/{metric}": value for metric, value in found.items()})
    return row


def _refuse_unfit(
    encoder: Encoder,
    tasks: Mapping[str, EvaluationTask],
    opened: Mapping[str, Any],
    arguments: Mapping[str, Mapping[str, Any]],
) -> None:
    """Checks all tasks before the first one runs: what the last would refuse must not cost the others' time.

    Raises:
        ValueError: an encoder and data that do not belong together, or text that cannot be read; says of which task.
    """
    for name, task in tasks.items():
        if task.check is not None:
            try:
                task.check(encoder, opened[name], **arguments.get(name, {}))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error


def _reporter(progress: Progress | None, model: str, before: int, total: int) -> Callable[[str, int], None]:
    def report(what: str, finished: int) -> None:
        if progress is not None:
            progress(f"{model}: {what}", before + finished, total)

    return report


def task_arguments(
    tasks: Mapping[str, EvaluationTask], options: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Options of each task, checked: known, of the right type, complete."""
    for name, wanted in options.items():
        task = lookup(tasks, name, "chosen task")
        _check_options(wanted, task.run, ("bank", "data", "seed"), f"option of {name}")
    for name, task in tasks.items():
        _check_complete(name, task.run, options.get(name, {}))
    return {name: dict(options.get(name, {})) for name in tasks}


def _check_complete(task: str, function: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Refuses a task that cannot run without an option that is not given."""
    for key, parameter in inspect.signature(function).parameters.items():
        needed = parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
        if needed and key not in given:
            raise ValueError(f"{task} needs {task}.{key}=...; see `eyespot.evaluate.{task}.run`")


def _check_options(given: Mapping[str, Any], function: Callable[..., Any], own: Iterable[str], kind: str) -> None:
    """Refuses options that a function does not have, and values of another type than it takes."""
    hints = get_type_hints(function)
    known: dict[str, Any] = {
        key: hints.get(key) for key in inspect.signature(function).parameters if key not in set(own)
    }
    for key, value in given.items():
        wanted = lookup(known, key, kind)
        try:
            TypeAdapter(wanted, config={"arbitrary_types_allowed": True}).validate_python(value, strict=True)
        except ValidationError:
            shown = getattr(wanted, "__name__", wanted) if not get_args(wanted) else wanted
            raise ValueError(f"{kind} {key} takes {shown}, got {value!r}") from None


def named_models(models: Sequence[str | Encoder] | Mapping[str, str | Encoder]) -> dict[str, str | Encoder]:
    """Models by name, which are all different."""
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


def loaded(model: str | Encoder, with_head: bool = False) -> Encoder:
    """The encoder, or the one that a spec names, with its class head or without."""
    from eyespot.encoders import load_classifier, load_encoder
    from eyespot.encoders.frozen import load_frozen

    if not isinstance(model, str):
        return model
    return load_frozen(model, load_classifier if with_head else load_encoder)


def _first_loaded(named: Mapping[str, str | Encoder], with_head: bool) -> Encoder:
    """The first model, loaded; a misspelt name is answered before data are opened, which may take minutes."""
    from eyespot.encoders.loading import check_spec

    for model in named.values():
        if isinstance(model, str):
            check_spec(model)
    return loaded(next(iter(named.values())), with_head)


def _check_numbers(**numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")


def task_sources(tasks: Mapping[str, EvaluationTask], data: str | ToyboxConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Where each task's data comes from."""
    if not isinstance(data, Mapping):
        if isinstance(data, str) and not is_toybox(data):
            example = " ".join(f"{name}=FOLDER" for name in tasks)
            raise ValueError(f"data {data!r}: give each task its own folder ({example}), or toybox")
        return dict.fromkeys(tasks, data)
    for name in data:
        lookup(tasks, name, "chosen task")
    missing = [name for name in tasks if name not in data]
    if missing:
        raise ValueError(f"no data for {', '.join(missing)}; give a folder or 'toybox' for each task")
    return {name: data[name] for name in tasks}


def open_all(
    tasks: Mapping[str, EvaluationTask], sources: Mapping[str, Any], limit: int | None, seed: int
) -> dict[str, Any]:
    """The data of each task. Equal toyboxes and equal folders are one object, so that pictures are encoded once.

    Raises:
        ValueError: data that tell nothing; see `refuse_nothing_to_tell`.
    """
    toyboxes: dict[ToyboxConfig, ToyboxData] = {}
    folders: dict[tuple[Any, ...], Any] = {}
    opened = {}
    for name, source in sources.items():
        if isinstance(source, str) and is_toybox(source) and not tasks[name].whole_source:
            source = ToyboxConfig.parse(source, limit, seed)
        if isinstance(source, ToyboxConfig):
            toybox = toyboxes.setdefault(source, ToyboxData(source))
            opened[name] = tasks[name].open_toybox(toybox)
        elif isinstance(source, str | Path):
            opened[name] = _open_folder(name, tasks[name], str(source), limit, folders)
        else:
            opened[name] = source
        refuse_nothing_to_tell(name, opened[name])
    return opened


def _open_folder(
    name: str, task: EvaluationTask, source: str, limit: int | None, known: dict[tuple[Any, ...], Any]
) -> Any:
    if task.whole_source:
        opener, folder, query = task.open_folder, source, ""
    else:
        place, _, query = source.partition("?")
        opener, folder = find_opener(place, name, task.open_folder)
    options = read_options(query)
    _check_options(options, opener, ("folder", "limit"), f"option of the data of {name}")
    key = (opener, folder, query)
    if key not in known:
        known[key] = opener(folder, limit=limit, **options)
    return known[key]
