"""The runtimes of one model, size and batch against one another: each in its own process, taking turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

from eyespot.deploy.benchmark.loading import Target
from eyespot.deploy.benchmark.process import WorkerError, WorkerProcess
from eyespot.deploy.benchmark.runtimes import BASELINE, Runtime
from eyespot.deploy.benchmark.table import Group, Row
from eyespot.deploy.benchmark.timing import Series, paired, take_turns

WARM_UP_TURNS = 2

Peaks = dict[str, float | None]
"""10^9 operations a second by precision; see `MatrixPeak.measure`."""


@dataclass(frozen=True)
class TimingPlan:
    """How everything is measured; see `benchmark`."""

    threads: int
    rounds: int
    runs: int
    turn_seconds: float
    folder: Path
    powercap: Path

    def start(self, name: str, threads: int | None = None) -> WorkerProcess:
        """A worker; what it prints goes to a file of this name."""
        return WorkerProcess(self.folder / "logs" / f"{name}.log", threads or self.threads, self.powercap)


@dataclass
class Contestant:
    """A runtime in its worker, and what came of it."""

    target: Target
    worker: WorkerProcess
    load_s: float = 0.0
    file_mib: float = 0.0
    memory_mib: float | None = None
    series: Series = field(default_factory=Series)
    failure: str = ""

    @property
    def runtime(self) -> Runtime:
        """The runtime."""
        return self.target.runtime

    def open(self) -> None:
        """Loads the model."""
        self.load_s, size = self.worker.ask("open", target=self.target)
        self.file_mib = size / 2**20

    def warm_up(self) -> None:
        """Runs that count nowhere."""
        for _ in range(WARM_UP_TURNS):
            self.worker.ask("turn", runs=1, seconds=0.0)

    def turn(self, plan: TimingPlan) -> None:
        """Takes part in a round."""
        self.series.turns.append(self.worker.ask("turn", runs=plan.runs, seconds=plan.turn_seconds))

    def note_memory(self) -> None:
        """Asks for the largest memory so far."""
        self.memory_mib = self.worker.ask("memory")

    def attempt(self, what: Callable[[], None]) -> None:
        """Does one of the above, unless an earlier one has failed; notes the reason if this one does."""
        if not self.failure:
            try:
                what()
            except WorkerError as error:
                self.failure = str(error)


def compete(
    group: Group, targets: Sequence[Target], plan: TimingPlan, peak: Callable[[], Peaks], say: Callable[[str], None]
) -> dict[str, Row]:
    """Times several runtimes against one another.

    Args:
        group: what all of them run.
        targets: one for each runtime.
        plan: see there.
        peak: measures the machine's matrix peak; takes part in every round like a runtime.
        say: told what is going on.

    Returns:
        Rows by name of the runtime.
    """
    with ExitStack() as stack:
        contestants = []
        for target in targets:
            say(f"load {target.runtime.name}")
            worker = stack.enter_context(plan.start(f"run-{target.runtime.name}"))
            contestants.append(Contestant(target, worker))
            contestants[-1].attempt(contestants[-1].open)
        say("take turns")
        for entry in contestants:
            entry.attempt(entry.warm_up)
        peaks: list[Peaks] = []
        turns = [partial(entry.attempt, partial(entry.turn, plan)) for entry in contestants]
        take_turns([*turns, lambda: peaks.append(peak())], plan.rounds)
        for entry in contestants:
            entry.attempt(entry.note_memory)
    baseline = next((entry for entry in contestants if entry.runtime.name == BASELINE and not entry.failure), None)
    return {entry.runtime.name: _row(group, entry, baseline, peaks) for entry in contestants}


def _row(group: Group, entry: Contestant, baseline: Contestant | None, peaks: Sequence[Peaks]) -> Row:
    runtime, series = entry.runtime, entry.series
    if entry.failure:
        return Row(group, runtime.name, "failed", entry.failure, runtime.precision)
    ratio = paired(baseline.series.by_round, series.by_round) if baseline else None
    of_precision = [peak.get(runtime.precision or "") for peak in peaks]
    known = [value for value in of_precision if value is not None]
    share = paired(achieved(group, series.by_round), of_precision)
    return Row(
        group,
        runtime.name,
        "measured",
        precision=runtime.precision,
        latency_ms=1e3 * series.latency,
        p95_ms=1e3 * series.p95,
        speedup=ratio.median if ratio else None,
        speedup_low=ratio.low if ratio else None,
        speedup_high=ratio.high if ratio else None,
        pictures_per_second=group.batch / series.latency,
        peak_gops=median(known) if known else None,
        peak_fraction=share.median if share else None,
        memory_mib=entry.memory_mib,
        load_s=entry.load_s,
        file_mib=entry.file_mib,
        joules_per_picture=None if series.joules is None else series.joules / group.batch,
        idle=series.idle,
        runs=len(series.seconds),
    )


def achieved(group: Group, seconds: Sequence[float]) -> list[float | None]:
    """10^9 operations a second of runs that took so long; a multiply-accumulate is two. None if the work is unknown."""
    if group.gmacs is None:
        return [None] * len(seconds)
    return [2 * group.gmacs * group.batch / value for value in seconds]
