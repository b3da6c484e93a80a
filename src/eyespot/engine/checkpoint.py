"""Checkpoints: written as a whole or not at all, newest kept, and refused when they belong to something else.

A checkpoint is a folder in the format of `torch.distributed.checkpoint`: every process writes what it holds, and any
number of processes with any strategy can read it again. `training.json` in it says what it belongs to.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import DefaultSavePlanner, FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint import load as read_tensors
from torch.distributed.checkpoint import save as write_tensors
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from eyespot.engine.processes import Processes
from eyespot.files import MAKE_ROOM, read_json, remove, understood, why_not_written
from eyespot.locks import require_same_folder

FORMAT = 2
FACTS_FILE = "training.json"
LONGEST_VALUE = 200
"""Characters of a value in a list of differences."""


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or does not belong to this training."""


class Checkpoints:
    """The checkpoints of one training.

    Args:
        folder: `step-00000500.ckpt` folders lie here; the number is the next step to do.
        keep: how many of the newest to keep.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def paths(self) -> list[Path]:
        """Finished checkpoints, oldest first."""
        return sorted(path for path in self.folder.glob("step-*.ckpt") if re.fullmatch(r"step-\d+\.ckpt", path.name))

    @property
    def last(self) -> Path | None:
        """The newest finished checkpoint."""
        paths = self.paths()
        return paths[-1] if paths else None

    def save(self, processes: Processes, step: int, facts: dict[str, Any], tensors: Mapping[str, Tensor]) -> Path:
        """Writes a checkpoint to a temporary name, renames it, and drops the oldest beyond `keep`.

        Args:
            processes: all of them have to call this.
            step: the next step to do.
            facts: JSON-able; `signature` says what the training is.
            tensors: by name; what is cut into slices is written by all, the rest by the first process.

        Raises:
            CheckpointError: it could not be written (disk full, say); names the last good one. In every process.
        """
        path = self.folder / f"step-{step:08d}.ckpt"
        temporary = self.folder / f".{path.name}.tmp"
        self._together(processes, path, self._clear, first_only=True)
        self._together(processes, path, lambda: _write_tensors(temporary, tensors, processes))
        facts = {"format": FORMAT, "step": step, **facts}
        self._together(processes, path, lambda: self._finish(temporary, path, facts), first_only=True)
        return path

    def _together(self, processes: Processes, path: Path, work: Callable[[], None], first_only: bool = False) -> None:
        """Does something in all processes, or in the first; an error in one is an error in all."""
        problem = None
        try:
            if processes.rank == 0 or not first_only:
                work()
        except (OSError, RuntimeError, CheckpointException) as error:
            cause = _cause(error)
            problem = why_not_written(path, cause) or (f"{_reason(cause)}; is the disk full?", MAKE_ROOM)
        problems = [each for each in processes.gather(problem) if each]
        if problems:
            last = self.last
            if processes.rank == 0:
                remove(path.with_name(f".{path.name}.tmp"))
            raise CheckpointError(
                f"could not write checkpoint {path} ({problems[0][0]}). Last good one: {last or 'none yet'}. "
                f"{problems[0][1]}"
            )

    def _clear(self) -> None:
        require_same_folder(Path(os.path.realpath(self.folder)))
        self.folder.mkdir(parents=True, exist_ok=True)
        for left_by_a_kill in self.folder.glob(".step-*.tmp"):
            remove(left_by_a_kill)

    def _finish(self, temporary: Path, path: Path, facts: dict[str, Any]) -> None:
        with open(temporary / FACTS_FILE, "w", encoding="utf-8") as file:
            json.dump(facts, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        self._drop(path)
        temporary.replace(path)
        for old in self.paths()[: -self.keep]:
            self._drop(old)

    def _drop(self, path: Path) -> None:
        """Deletes a checkpoint. It loses its name first, so that a kill leaves no half of one that has it."""
        if path.exists():
            remove(path.rename(path.with_name(f".{path.name}.old.tmp")))

    def find(self, processes: Processes, signature: dict[str, Any]) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint and its facts, or None if there is none.

        Args:
            processes: all of them have to call this; the first one's view of the disk counts.
            signature: what the training is; must equal what the checkpoint was written with.

        Raises:
            CheckpointError: it is unreadable or belongs to another configuration; shows the difference.
        """
        path: Path | None = processes.gather(self.last)[0]
        if path is None:
            return None
        if path.is_file():
            raise CheckpointError(f"{path} was written by another version of eyespot")
        try:
            with understood(path / FACTS_FILE):
                facts: dict[str, Any] = dict(read_json(path / FACTS_FILE))
                recorded = dict(facts.get("signature", {}))
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error
        if facts.get("format") != FORMAT:
            raise CheckpointError(f"{path} was written by another version of eyespot")
        different = difference(recorded, signature)
        if different:
            raise CheckpointError(f"{path} belongs to another configuration:\n  " + "\n  ".join(different))
        return path, facts


def stored_tensors(path: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Names, shapes and types of what a checkpoint holds.

    Raises:
        CheckpointError: it is unreadable.
    """
    try:
        entries = FileSystemReader(path).read_metadata().state_dict_metadata
    except Exception as error:
        raise _unreadable(path, error) from error
    return {
        name: (entry.size, entry.properties.dtype)
        for name, entry in entries.items()
        if isinstance(entry, TensorStorageMetadata)
    }


def read_into(path: Path, tensors: Mapping[str, Tensor], processes: Processes) -> None:
    """Reads a checkpoint into tensors of the right shapes, whole or cut into slices, in place.

    Args:
        path: of the checkpoint.
        tensors: by name, each of which it must hold.
        processes: all of them have to call this.

    Raises:
        CheckpointError: it is unreadable.
    """
    reader, alone = FileSystemReader(path), processes.count == 1
    try:
        with _without_warnings():
            read_tensors(dict(tensors), storage_reader=reader, process_group=processes.group, no_dist=alone)
    except (Exception, CheckpointException) as error:
        raise _unreadable(path, error) from error


def _write_tensors(path: Path, tensors: Mapping[str, Tensor], processes: Processes) -> None:
    with _without_warnings():
        write_tensors(
            dict(tensors),
            storage_writer=FileSystemWriter(path),
            # What is not cut, all have; batch norm's statistics are those of the first process.
            planner=DefaultSavePlanner(dedup_save_to_lowest_rank=True),
            process_group=processes.group,
            no_dist=processes.count == 1,
        )


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Torch warns whenever there is but one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield


def _unreadable(path: Path, error: BaseException) -> CheckpointError:
    return CheckpointError(f"{path} cannot be read ({_reason(error)}); delete it to go on from the one before")


def _cause(error: BaseException) -> BaseException:
    """What went wrong in the first process in which something did."""
    return next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error


def _reason(error: BaseException) -> str:
    """What went wrong, in one line."""
    error = _cause(error)
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def difference(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Every entry in which two nested dicts differ, as "key: old -> new" lines."""
    lines = []
    for key in sorted({*old, *new}, key=str):
        a, b = old.get(key, "absent"), new.get(key, "absent")
        if isinstance(a, dict) and isinstance(b, dict):
            lines += difference(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {_shown(a)} -> {_shown(b)}")
    return lines


def _shown(value: Any) -> str:
    """A value in a line; of a whole section, the beginning."""
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]} ..."
