"""The run folder: what is decided once per run, and who may continue it."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import yaml

from eyespot.engine.checkpoint import difference
from eyespot.files import atomic_write_text, read_yaml
from eyespot.locks import LOCK_FILE, Lock

CONFIG_FILE = "config.yaml"


class RunMismatchError(RuntimeError):
    """The folder holds a run of another configuration."""


class RunFolder:
    """`runs/NAME`: configuration, metrics, stages and the finished student (DESIGN: run folder).

    Args:
        path: the folder; made if it is not there.
        config: the resolved configuration, JSON-able.
        free: dotted names of entries that may change when a run is continued, because they do not touch its result.

    Raises:
        RunMismatchError: the folder holds a run with another configuration; shows every difference.
        FileExistsError: the folder holds something else, or is a file.
    """

    def __init__(self, path: str | Path, config: dict[str, Any], free: tuple[str, ...] = ()) -> None:
        self.path, self._config, self._free = Path(path), config, free
        self._hold: weakref.finalize[..., RunFolder] | None = None
        self._check()

    def begin(self) -> None:
        """Records the configuration: the folder is a run from here on, and this process alone writes in it.

        Until `release`, or until nobody knows this object any more.

        Raises:
            InUseError: another process works in the folder; says which.
            RunMismatchError, FileExistsError: another run was begun there since this one looked.
        """
        self.lock()
        self._check()
        atomic_write_text(self.path / CONFIG_FILE, yaml.safe_dump(self._config, sort_keys=False))

    def lock(self) -> None:
        """Keeps other processes from beginning or continuing a run here, see `begin`.

        Raises:
            InUseError: another process works in the folder; says which.
        """
        if self._hold is not None and self._hold.alive:
            return
        lock = Lock(self.path / LOCK_FILE, self.path)
        lock.acquire()
        self._hold = weakref.finalize(self, lock.release)

    def release(self) -> None:
        """Lets other processes write here."""
        if self._hold is not None:
            self._hold()

    def _check(self) -> None:
        file = self.path / CONFIG_FILE
        if file.exists():
            recorded = read_yaml(file)
            if not isinstance(recorded, dict):
                raise FileExistsError(f"{file} is no run's configuration; choose another --output")
            lines = difference(recorded, self._config)
            different = [line for line in lines if line.partition(":")[0] not in self._free]
            if different:
                raise RunMismatchError(
                    f"{self.path} holds a run with another configuration:\n  "
                    + "\n  ".join(different)
                    + "\nChoose another --output, or give that run's configuration to continue it."
                )
        elif self.path.is_dir() and any(not entry.name.startswith(".") for entry in self.path.iterdir()):
            raise FileExistsError(f"{self.path} is not empty and holds no run; choose another --output")
        elif self.path.is_file():
            raise FileExistsError(f"{self.path} is a file; --output must name a folder")

    @property
    def metrics(self) -> Path:
        """metrics.jsonl of all stages."""
        return self.path / "metrics.jsonl"

    @property
    def probes(self) -> Path:
        """probes.jsonl of all stages: what was measured while they were trained."""
        return self.path / "probes.jsonl"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.path / "report.html"

    @property
    def results(self) -> Path:
        """The table of what was measured, as JSON."""
        return self.path / "results.json"

    @property
    def student(self) -> Path:
        """Folder of the finished student."""
        return self.path / "student"

    @property
    def students(self) -> Path:
        """With several students, what holds a folder for each."""
        return self.path / "students"

    def stage(self, name: str) -> Path:
        """Folder of a stage; `model/` in it appears when the stage is finished."""
        return self.path / name
