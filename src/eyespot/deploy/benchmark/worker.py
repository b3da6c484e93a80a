"""The worker: a process that holds one model in one runtime, and runs it when it is told to."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from eyespot.deploy.benchmark.energy import Rapl
from eyespot.deploy.benchmark.loading import Target, import_library, open_target
from eyespot.deploy.benchmark.memory import PeakMemory
from eyespot.deploy.benchmark.peak import MatrixPeak
from eyespot.deploy.benchmark.runtimes import Runtime
from eyespot.deploy.benchmark.table import Group
from eyespot.deploy.benchmark.timing import Turn


class Worker:
    """What a worker can be told to do; every public method is a command.

    Args:
        threads: how many it computes with.
        powercap: folder of the energy counters.
    """

    def __init__(self, threads: int, powercap: Path) -> None:
        torch.set_num_threads(threads)
        self.rapl = Rapl(powercap)
        self._run: Callable[[], object] | None = None
        self._memory: PeakMemory | None = None
        self._peak: MatrixPeak | None = None
        self._left: tuple[float, float] | None = None

    def prepare(self, group: Group, runtime: Runtime, folder: Path) -> Path:
        """See `exports.prepare`."""
        from eyespot.deploy.benchmark.exports import prepare  # a worker that runs a model has no use for exporters

        return prepare(group, runtime, folder)

    def open(self, target: Target) -> tuple[float, int]:
        """Loads a model and runs it once; seconds of both together, and the size of what was loaded in bytes."""
        import_library(target.runtime)
        self._memory = PeakMemory()
        start = time.perf_counter()
        self._run, size = open_target(target)
        self._run()
        return time.perf_counter() - start, size

    def turn(self, runs: int, seconds: float) -> Turn:
        """Runs the model once untimed, then up to `runs` times timed, fewer (one at the least) if `seconds` are up."""
        assert self._run is not None
        rested, restless = (now - then for now, then in zip(_clocks(), self._left or _clocks(), strict=True))
        self._run()  # others had the caches meanwhile
        times: list[float] = []
        before = self.rapl.read()
        while len(times) < runs and (not times or sum(times) < seconds):
            start = time.perf_counter()
            self._run()
            times.append(time.perf_counter() - start)
        joules = self.rapl.joules(before, self.rapl.read())
        self._left = _clocks()
        return Turn(times, joules, rested, restless)

    def memory(self) -> float | None:
        """Largest resident memory since loading began, in MiB above what the process held before."""
        return self._memory.mebibytes() if self._memory else None

    def peak(self) -> dict[str, float | None]:
        """See `MatrixPeak.measure`; prepares itself the first time."""
        self._peak = self._peak or MatrixPeak()
        return self._peak.measure()


def _clocks() -> tuple[float, float]:
    """Seconds of the wall clock, and CPU seconds of this process with all its threads."""
    return time.perf_counter(), time.process_time()


def serve(connection: Connection, log: Path, threads: int, powercap: Path) -> None:
    """Obeys commands (name, arguments) until the other end closes; answers (succeeded, value or reason).

    What the runtimes print goes to `log`.
    """
    with log.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    worker = Worker(threads, powercap)
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            name, arguments = connection.recv()
            connection.send(_answer(worker, name, arguments))


def _answer(worker: Worker, command: str, arguments: dict[str, Any]) -> tuple[bool, Any]:
    try:
        return True, getattr(worker, command)(**arguments)
    except Exception as error:  # whatever a runtime throws becomes the reason in its row
        traceback.print_exc()
        return False, reason(error)


def reason(error: BaseException) -> str:
    """An error in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text if isinstance(error, ValueError | ImportError | OSError) else f"{type(error).__name__}: {text}"
