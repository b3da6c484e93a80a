"""Metrics on the way: averaged on the device, read once per log line, kept as JSON lines."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eyespot.files import atomic_write_text, write_errors_named
from eyespot.locks import require_same_folder


class Meter:
    """Collects the scalars of every step without reading them, so that the host never waits for the device."""

    def __init__(self) -> None:
        self._rows: list[Tensor] = []
        self._names: list[str] = []

    def add(self, scalars: dict[str, Tensor]) -> None:
        """Adds one step's scalars; every step has the same names."""
        self._names = list(scalars)
        self._rows.append(torch.stack([value.detach().float() for value in scalars.values()]))

    def take(self) -> tuple[list[str], Tensor]:
        """(names, values [steps, names]) since the last call, and forgets them. No device sync."""
        rows, self._rows = torch.stack(self._rows), []
        return self._names, rows


class RunLog:
    """Writes `metrics.jsonl`, the source of truth about a run (one JSON object per line, with `stage` and `step`), and
    the same numbers for TensorBoard.

    Opening it for a stage drops the lines of that stage after `from_step`, which a resumed run will write again, and a
    last line that a kill has cut short.

    Args:
        path: the file; TensorBoard's lie in `tensorboard/` beside it.
        stage: whose lines are written.
        from_step: steps done so far.
        tensorboard: whether to write for TensorBoard.
        part: a sub-folder for TensorBoard, so that two logs of one stage do not meet.
    """

    def __init__(self, path: Path, stage: str, from_step: int, tensorboard: bool, part: str = "") -> None:
        self.path = path
        self.stage = stage
        lines = read_lines(path)
        kept = [line for line in lines if line.get("stage") != stage or line.get("step", 0) <= from_step]
        atomic_write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._board: Any = None
        self._folder = path.parent / "tensorboard" / stage / part
        if tensorboard:
            with self._board_spared():
                self._board = _tensorboard(self._folder, from_step)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Appends one line; it stands for everything up to `step`.

        Raises:
            CannotWriteError: the disk is full, or the like; the same command continues from the last checkpoint.
            FolderGoneError: the run folder is no longer there.
        """
        require_same_folder(Path(os.path.realpath(self.path)))
        then = "A training continues from the last checkpoint"
        with write_errors_named(self.path, then), open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"stage": self.stage, "step": step, **values}) + "\n")
        with self._board_spared():
            if self._board:
                for name, value in values.items():
                    self._board.add_scalar(name, value, step)
                self._board.flush()

    def close(self) -> None:
        """Ends the TensorBoard file."""
        with self._board_spared():
            if self._board:
                self._board.close()

    @contextmanager
    def _board_spared(self) -> Iterator[None]:
        """TensorBoard's files say again what `metrics.jsonl` says: without them, training goes on."""
        try:
            yield
        except OSError as error:
            board, self._board = self._board, None
            with suppress(OSError):
                if board:
                    board.close()  # ends its thread
            warnings.warn(
                f"no more files for TensorBoard, {self._folder} cannot be written ({error}); {self.path} has the same "
                "numbers",
                stacklevel=3,
            )


def _tensorboard(folder: Path, from_step: int) -> Any:
    """A writer of TensorBoard's files; None, and one remark in a process, where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        _say_that_tensorboard_is_missing()
        return None
    return SummaryWriter(folder, purge_step=from_step + 1)


@cache
def _say_that_tensorboard_is_missing() -> None:
    print(
        "No files for TensorBoard, which is not installed (pip install eyespot[tensorboard]); "
        "metrics.jsonl has the same numbers.",
        file=sys.stderr,
    )


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a metrics file, none if it is not there.

    A last line that a kill has cut short is left out. So are damaged ones before it, of which a warning tells.
    """
    path = Path(path)
    if not path.exists():
        return []
    read = [_line(text) for text in path.read_text(encoding="utf-8", errors="replace").split("\n")]
    lost = sum(line is None for line in read[:-1])
    if lost:
        warnings.warn(f"{path}: {lost} lines are damaged and left out", stacklevel=2)
    return [line for line in read if line]


def _line(text: str) -> dict[str, Any] | None:
    """A line of a metrics file; empty if it says nothing, None if it is damaged."""
    if not text.strip():
        return {}
    try:
        line = json.loads(text)
    except ValueError:
        return None
    sound = isinstance(line, dict) and isinstance(line.get("stage", ""), str) and isinstance(line.get("step", 0), int)
    return line if sound else None
