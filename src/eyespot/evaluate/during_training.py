"""Probes during training: what the model can do by now, measured in the background every so many steps.

All of it is ours. A probe looks at a copy of the model (its moving average if there is one), so training goes on
meanwhile, and its numbers are the same to the last bit as without probes: nothing here may draw from a global random
generator, which the training steps do.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import torch

from eyespot.encoders.base import Encoder
from eyespot.engine.callbacks import Callback, Students
from eyespot.engine.metrics import RunLog, read_lines
from eyespot.evaluate.config import ProbesConfig
from eyespot.evaluate.extraction import FeatureBank
from eyespot.evaluate.run_tasks import open_all, read_sources, task_arguments, task_sources
from eyespot.evaluate.tasks import TASKS, EvaluationTask
from eyespot.specs import lookup
from eyespot.waiting import awaited

QUICK_TASKS = ("knn", "segmentation")
BATCH_SIZE = 16  # small: a probe that is told to stop does so after a batch


class Probes:
    """The probes of one run.

    Args:
        config: which.
        path: the run's probes.jsonl.
        size: side of the pictures in pixels, if the configuration does not say.
        seed: names all draws.
        tensorboard: whether to write for TensorBoard too.

    Raises:
        ValueError: an unknown task, one without data, or one that cannot run without options.
    """

    def __init__(self, config: ProbesConfig, path: Path, size: int, seed: int = 0, tensorboard: bool = False) -> None:
        sources = read_sources(config.data)
        names = config.tasks or (list(sources) if isinstance(sources, dict) else QUICK_TASKS)
        self.tasks: dict[str, EvaluationTask] = {name: lookup(TASKS, name, "task") for name in names}
        task_arguments(self.tasks, {})
        self.sources = task_sources(self.tasks, sources)
        self.data: dict[str, Any] = {}
        self.config, self.path, self.seed, self.tensorboard = config, path, seed, tensorboard
        self.size = config.size or size
        self.complained = False

    def of_stage(self, stage: str, students: Sequence[str] = ("student",)) -> list[Callback]:
        """Those that watch a stage, one per student. Opens the data, if this is the first.

        Raises:
            FileNotFoundError: a data set that is not laid out as expected.
        """
        self.open_data()
        return [StageProbes(self, stage, student) for student in students]

    def open_data(self) -> None:
        """Opens the data, if that has not been done; renders the toybox."""
        if not self.data:
            self.data = open_all(self.tasks, self.sources, self.config.limit, self.seed)

    def measure(self, encoder: Encoder, stopped: Callable[[], bool] = lambda: False) -> dict[str, float]:
        """The headline metrics of all tasks, as "TASK/METRIC", and the seconds it took.

        Raises:
            InterruptedError: `stopped()` became true.
        """
        start = time.monotonic()

        def check(*_: Any) -> None:
            if stopped():
                raise InterruptedError

        bank = FeatureBank(encoder, self.size, BATCH_SIZE, progress=check)
        values: dict[str, float] = {}
        for name, task in sorted(self.tasks.items(), key=lambda entry: not entry[1].patches):
            check()
            found = task.run(bank, self.data[name], seed=self.seed)
            shown = {metric.name: found.get(metric.name) for metric in task.metrics if metric.headline}
            values |= {f"{name}/{metric}": value for metric, value in shown.items() if value is not None}
        return {**values, "seconds": time.monotonic() - start}

    def complain(self, message: str) -> None:
        """Warns, but only once in a run."""
        if not self.complained:
            self.complained = True
            warnings.warn(f"{message}. Training goes on; further failures of probes are not shown", stacklevel=3)


class StageProbes(Callback):
    """The probes of one student in one stage: at most one at a time, in one background thread with one CPU thread.

    A probe that falls due while the one before is still running is left out and counted, so that there is never more
    than one copy of the model. The last step is always probed, and the stage waits for that.

    Args:
        probes: what to measure.
        stage: its name in probes.jsonl; with several students, the student's comes behind a slash.
        student: whom to watch.

    Attributes:
        skipped: steps whose probe was left out, in this session.
    """

    def __init__(self, probes: Probes, stage: str, student: str = "student") -> None:
        self.probes, self.student = probes, student
        self.every = probes.config.every
        self.stage = stage if student == "student" else f"{stage}/{student}"
        self.skipped: list[int] = []
        self._copy: Encoder | None = None
        self._running: Future[None] | None = None
        self._stop = Event()

    def before_training(self, step: int) -> None:
        """Opens the log, where steps that will be done again are dropped."""
        probes = self.probes
        self._log = RunLog(probes.path, self.stage, step, probes.tensorboard, part="probes")
        self._last = max((line["step"] for line in read_probes(probes.path).get(self.stage, [])), default=0)
        # One thread: with more, a training that uses all cores would wait for them in every parallel loop.
        self._worker = ThreadPoolExecutor(1, "probe", torch.set_num_threads, (1,))

    def after_step(self, step: int, students: Students) -> None:
        """Starts a probe if one is due."""
        if step % self.probes.config.every:
            return
        if self.busy:
            self.skipped.append(step)
        else:
            self._settle()
            self._start(step, students)

    def after_training(self, step: int, students: Students, completed: bool) -> None:
        """Probes the last step and waits for it; after an error or an interrupt, ends what is running."""
        try:
            if completed and step > self._last:
                self._settle()
                self.skipped = [number for number in self.skipped if number < step]
                self._start(step, students)
            if completed:
                self._settle()
        finally:
            self._stop.set()
            self._worker.shutdown()
            self._log.close()

    @property
    def busy(self) -> bool:
        """Whether a probe is running."""
        return self._running is not None and not self._running.done()

    def _start(self, step: int, students: Students) -> None:
        self._last = step
        try:
            encoder = self._snapshot(students[self.student])
        except Exception as error:
            self.probes.complain(f"{self.stage}: the model cannot be copied for probes ({error!r})")
            return
        self._running = self._worker.submit(self._probe, encoder, step, len(self.skipped))

    @torch.no_grad()
    def _snapshot(self, student: torch.nn.Module) -> Encoder:
        """The model as it is now; copied once, then only its numbers. Nobody is looking at the copy at this time."""
        if self._copy is None:
            assert isinstance(student, Encoder)
            copied = copy.deepcopy(student).requires_grad_(False).eval()
            # Two threads at once are too much for torch's MPS backend.
            elsewhere = self.probes.config.device == "cpu" or copied.device.type == "mps"
            self._copy = copied.cpu() if elsewhere else copied
        else:
            self._copy.load_state_dict(student.state_dict())
        return self._copy

    def _probe(self, encoder: Encoder, step: int, skipped: int) -> None:
        """In the background."""
        self._log.write(step, {**self.probes.measure(encoder, self._stop.is_set), "skipped": skipped})

    def _settle(self) -> None:
        """Waits for the probe under way, if any; what went wrong there is not fatal."""
        running, self._running = self._running, None
        try:
            if running is not None:
                awaited(running, f"the probe of step {self._last} of {self.stage}")
        except Exception as error:
            self.probes.complain(f"{self.stage}: the probe of step {self._last} failed ({error!r})")


def read_probes(path: str | Path) -> dict[str, list[dict[str, Any]]]:
    """What was measured while a run was trained.

    Args:
        path: probes.jsonl of the run.

    Returns:
        stage -> its lines in order of step, each with "step", "TASK/METRIC" as `evaluate` gives it, "seconds" that the
        probe took, and "skipped", how many were left out before it; empty if there is no such file.
    """
    stages: dict[str, list[dict[str, Any]]] = {}
    for line in read_lines(path):
        if {"stage", "step"} <= line.keys():
            stages.setdefault(line["stage"], []).append(line)
    return {stage: sorted(lines, key=lambda line: line["step"]) for stage, lines in stages.items()}
