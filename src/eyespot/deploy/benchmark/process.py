"""The driver's side of a worker: starts it, tells it what to do, notices when it dies."""

from __future__ import annotations

import multiprocessing
import signal
from pathlib import Path
from types import TracebackType
from typing import Any

from eyespot.deploy.benchmark.energy import POWERCAP
from eyespot.deploy.benchmark.worker import serve

SECONDS_TO_LEAVE = 10.0

SECONDS_TO_ANSWER = 3600.0
"""So long a command may take, an export of a large model included; then the worker counts as hanging."""


class WorkerError(RuntimeError):
    """A command failed, or the worker died of it; the message is the reason, in one line."""


class WorkerProcess:
    """A worker in a process of its own.

    Where the system can, it is forked from a clean process that has only imported torch and eyespot, once for all:
    starting anew costs seconds of imports each. Used as a context; leaving it ends the process.

    Args:
        log: file to which the worker's own output is appended.
        threads: how many it computes with.
        powercap: folder of the energy counters.
    """

    def __init__(self, log: Path, threads: int, powercap: Path = POWERCAP) -> None:
        can_fork = "forkserver" in multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("forkserver" if can_fork else "spawn")
        if can_fork:
            context.set_forkserver_preload(["__main__", serve.__module__])
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, log, threads, powercap), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, command: str, **arguments: Any) -> Any:
        """What a method of `Worker` returns.

        Raises:
            WorkerError: it failed, the process died, or it hangs and was ended.
        """
        try:
            self._connection.send((command, arguments))
            if not self._connection.poll(SECONDS_TO_ANSWER):
                self._process.kill()
                raise WorkerError(f"no answer to {command!r} for {SECONDS_TO_ANSWER:g} s: the worker was ended")
            succeeded, value = self._connection.recv()
        except (EOFError, ConnectionError) as error:
            raise WorkerError(self._cause_of_death()) from error
        if not succeeded:
            raise WorkerError(value)
        return value

    def _cause_of_death(self) -> str:
        self._process.join(SECONDS_TO_LEAVE)
        code = self._process.exitcode
        how = f"exit code {code}"
        if code is not None and code < 0:
            how = signal.Signals(-code).name + (" (perhaps out of memory)" if -code == signal.SIGKILL else "")
        last = self._log.read_text(errors="replace").strip().splitlines()[-1:]
        return f"the worker process died: {how}" + (f"; its last words: {last[0][:200]}" if last else "")

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._process.join(SECONDS_TO_LEAVE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
