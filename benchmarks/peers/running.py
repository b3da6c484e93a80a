"""Jobs as processes in their environments: run to the end, or a few steps at a time."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from environments import python_of
from job import Job

import eyespot

WORKER = Path(__file__).with_name("worker.py")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def start(job: Job, envs: Path) -> subprocess.Popen[str]:
    """The job's process; what it prints goes to `log.txt` in the job's folder."""
    Path(job.folder).mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **ONE_THREAD, "HF_HUB_OFFLINE": "1", "LIGHTLY_TRAIN_EVENTS_DISABLED": "1"}
    if job.loop == "ours":
        environment["PYTHONPATH"] = str(Path(eyespot.__file__).parents[1])
    else:
        environment.pop("PYTHONPATH", None)
    with (Path(job.folder) / "log.txt").open("w") as log:
        return subprocess.Popen(
            [str(python_of(job.loop, envs)), str(WORKER), job.to_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        )


def run(job: Job, envs: Path) -> dict[str, float]:
    """Trains to the end.

    Returns:
        "cpu" and "wall" seconds of the training, without imports.

    Raises:
        RuntimeError: it failed; with the end of its log.
    """
    process = start(job, envs)
    process.communicate()
    if process.returncode:
        raise RuntimeError(f"{job.loop} failed:\n{log_end(job)}")
    seconds: dict[str, float] = json.loads(Path(job.output).with_suffix(".json").read_text())
    return seconds


class Runner:
    """A loop that stands still until it is told to do some steps."""

    def __init__(self, job: Job, envs: Path) -> None:
        self.job = job
        self.process = start(job, envs)

    def wait_until_ready(self) -> None:
        """Returns when the loop has reached its first step."""
        self._answer()

    def measure(self, steps: int) -> dict[str, float]:
        """CPU and wall seconds per step over the next `steps`."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        answer = self._answer()
        return {clock: answer[clock] / steps for clock in ("cpu", "wall")}

    def stop(self) -> None:
        """Ends the process."""
        if self.process.poll() is None:
            self.process.communicate("stop\n")

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.job.loop} ended early:\n{log_end(self.job)}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def log_end(job: Job) -> str:
    """The last lines that the job's process has printed."""
    return "\n".join((Path(job.folder) / "log.txt").read_text(errors="replace").splitlines()[-25:])
