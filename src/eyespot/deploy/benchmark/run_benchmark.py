"""`benchmark`: several models in several runtimes, side by side, in ratios that hold."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from eyespot.deploy.benchmark.contest import Peaks, TimingPlan, compete
from eyespot.deploy.benchmark.energy import POWERCAP
from eyespot.deploy.benchmark.exports import export_folder
from eyespot.deploy.benchmark.loading import Target
from eyespot.deploy.benchmark.plot import write_plot
from eyespot.deploy.benchmark.process import WorkerError, WorkerProcess
from eyespot.deploy.benchmark.runtimes import RUNTIMES, Runtime, find_runtimes, library_versions
from eyespot.deploy.benchmark.table import BenchmarkTable, Group, Row
from eyespot.deploy.benchmark.timed_models import TimedModel, WantedSize, read_timed_model
from eyespot.evaluate.progress import Progress
from eyespot.files import atomic_write_text
from eyespot.outputs import FolderKind, holds
from eyespot.report import machine_info
from eyespot.waiting import awaited

BENCHMARK_FOLDER = FolderKind("a benchmark", holds("exports/*/export.json", "logs/peak.log"))
EXPORTS_AT_ONCE = 2
"""Converters compute in one thread most of the time."""


def benchmark(
    models: Sequence[str],
    runtimes: Sequence[str] | None = None,
    image_sizes: Sequence[WantedSize] = (),
    threads: int | None = None,
    batches: Sequence[int] = (1,),
    output: str | Path = "runs/benchmark",
    *,
    rounds: int = 10,
    runs: int = 5,
    turn_seconds: float = 0.3,
    progress: Progress | None = None,
    powercap: str | Path = POWERCAP,
) -> BenchmarkTable:
    """Times models in runtimes, next to one another; see docs/deploy/benchmark.md for what is measured and how.

    Every runtime of a model, size and batch gets a process of its own. They take turns: in each round each runs once
    untimed and then a few times timed, one at a time, and so does the machine's matrix product. All ratios are taken
    within a round. A runtime whose library is missing is listed as skipped, one that fails as failed, with the reason.

    The processes import the caller's main module, as everywhere in Python's multiprocessing: a script that calls this
    needs `if __name__ == "__main__":`.

    Args:
        models: specs for `load_encoder`; files of other runtimes ("onnx/FILE") are timed as they are.
        runtimes: names from `RUNTIMES`; all of them if None.
        image_sizes: sides of squares, (height, width) or "256x192"; each model's default size if empty.
        threads: how many each runtime computes with; as many as this process has cores if None.
        batches: pictures per run. Every batch is exported and timed on its own.
        output: folder for results.json, results.md, latency.png, and exports, which a further call takes up again.
        rounds: how many.
        runs: most timed runs of a runtime in one round.
        turn_seconds: after this time no further run is begun in a turn.
        progress: called with (what is going on, groups finished, groups in all).
        powercap: folder of the energy counters.

    Raises:
        ValueError: an unknown runtime (says the nearest), a size that a model cannot take (says which would do), or a
            number below one.
        FileExistsError, NotADirectoryError: something else than a benchmark lies at `output`.
        InUseError: another process works in `output`.
    """
    threads = threads if threads is not None else _cores()
    _check(models, threads=threads, rounds=rounds, runs=runs, batches=min(batches, default=0))
    chosen = find_runtimes(RUNTIMES if runtimes is None else runtimes)
    plan = TimingPlan(threads, rounds, runs, turn_seconds, Path(output), Path(powercap))
    BENCHMARK_FOLDER.check(output)  # before models are read, which takes a while
    timed_models = [read_timed_model(model, image_sizes, batches) for model in dict.fromkeys(models)]
    machine = {**machine_info(), "libraries": library_versions()}
    settings = {"threads": threads, "rounds": rounds, "runs": runs, "turn_seconds": turn_seconds}
    table = BenchmarkTable([], machine, settings)
    work = [(timed, group) for timed in timed_models for group in timed.groups]
    with BENCHMARK_FOLDER.work_in(output), plan.start("peak") as peak_worker:
        for done, (timed, group) in enumerate(work):
            say = partial(_say, progress, group.label, done, len(work))
            rows = _measure(timed, group, chosen, plan, partial(_peak, peak_worker), say)
            table = BenchmarkTable([*table.rows, *rows], machine, settings)
            _write(table, plan.folder)
    return table


def _check(models: Sequence[str], **numbers: int) -> None:
    if not models or isinstance(models, str):
        raise ValueError("models is a list of at least one spec")
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def _measure(
    timed: TimedModel,
    group: Group,
    chosen: Sequence[Runtime],
    plan: TimingPlan,
    peak: Callable[[], Peaks],
    say: Callable[[str], None],
) -> list[Row]:
    """The rows of one group."""
    if timed.file_format:
        chosen = [replace(RUNTIMES[timed.file_format], precision=None)]
    rows = {
        runtime.name: Row(group, runtime.name, "skipped", runtime.missing, runtime.precision)
        for runtime in chosen
        if runtime.missing
    }
    targets: list[Target] = []
    for runtime, file in _files(timed, group, [entry for entry in chosen if entry.name not in rows], plan, say):
        if isinstance(file, WorkerError):
            rows[runtime.name] = Row(group, runtime.name, "failed", f"export: {file}", runtime.precision)
        else:
            targets.append(Target(group.model, runtime, group.batch, group.size, file))
    rows |= compete(group, targets, plan, peak, say)
    return [rows[runtime.name] for runtime in chosen]


def _files(
    timed: TimedModel, group: Group, runtimes: Sequence[Runtime], plan: TimingPlan, say: Callable[[str], None]
) -> Iterator[tuple[Runtime, Path | WorkerError | None]]:
    """What each runtime needs on disk (or why it cannot be made), made by workers of their own unless it is there."""
    if timed.file_format:
        yield from ((runtime, None) for runtime in runtimes)
        return
    root = plan.folder / "exports"
    folders = {entry.name: export_folder(root, timed.weights, entry, group, plan.threads) for entry in runtimes}
    jobs: dict[Path, Future[Path | WorkerError]] = {}
    with ThreadPoolExecutor(EXPORTS_AT_ONCE) as pool:
        for runtime in runtimes:
            folder = folders[runtime.name]
            if folder and folder not in jobs:  # two runtimes may share a file
                jobs[folder] = pool.submit(_export, group, runtime, folder, plan)
        for runtime in runtimes:
            folder = folders[runtime.name]
            if folder:
                say(f"export for {runtime.name}")
            yield runtime, awaited(jobs[folder], f"the export for {runtime.name}") if folder else None


def _export(group: Group, runtime: Runtime, folder: Path, plan: TimingPlan) -> Path | WorkerError:
    threads = 1 if runtime.format else plan.threads  # compiled code depends on it
    try:
        with plan.start(folder.name, threads) as worker:
            file: Path = worker.ask("prepare", group=group, runtime=runtime, folder=folder)
            return file
    except WorkerError as error:
        return error


def _peak(worker: WorkerProcess) -> Peaks:
    try:
        peaks: Peaks = worker.ask("peak")
        return peaks
    except WorkerError:
        return {}  # its log says why; the shares of the peak stay unknown


def _write(table: BenchmarkTable, folder: Path) -> None:
    atomic_write_text(folder / "results.json", table.to_json())
    atomic_write_text(folder / "results.md", table.to_markdown())
    write_plot(table, folder / "latency.png")


def _say(progress: Progress | None, label: str, done: int, total: int, what: str) -> None:
    if progress:
        progress(f"{label}: {what}", done, total)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
