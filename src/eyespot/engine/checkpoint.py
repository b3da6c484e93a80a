"""Checkpoints: written as a whole or not at all, newest kept, and refused when they belong to something else."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric

from eyespot.files import remove

FORMAT = 1


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or does not belong to this training."""


class Checkpoints:
    """The checkpoints of one training.

    Args:
        folder: `step-00000500.ckpt` files lie here; the number is the next step to do.
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

    def save(self, fabric: Fabric, step: int, state: dict[str, Any]) -> Path:
        """Writes a checkpoint to a temporary name, renames it, and drops the oldest beyond `keep`.

        Raises:
            CheckpointError: it could not be written (disk full, say); names the last good one.
        """
        path = self.folder / f"step-{step:08d}.ckpt"
        temporary = self.folder / f".{path.name}.tmp"
        if fabric.is_global_zero:
            try:
                self._write(temporary, {"format": FORMAT, "step": step, **state})
                temporary.replace(path)
            except (OSError, RuntimeError) as error:
                remove(temporary)
                raise CheckpointError(
                    f"could not write checkpoint {path} ({error}); is the disk full? "
                    f"Last good one: {self.last or 'none yet'}. Make room and run the same command again."
                ) from error
            for old in self.paths()[: -self.keep]:
                remove(old)
        fabric.barrier()
        return path

    def _write(self, path: Path, content: dict[str, Any]) -> None:
        # Not fabric.save: it collects the file in memory and in the system's folder for temporary files first.
        self.folder.mkdir(parents=True, exist_ok=True)
        for left_by_a_kill in self.folder.glob(".step-*.tmp"):
            remove(left_by_a_kill)
        with open(path, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())

    def load(self, fabric: Fabric, signature: dict[str, Any]) -> dict[str, Any] | None:
        """The newest checkpoint, or None if there is none.

        Args:
            fabric: reads the file.
            signature: what the training is; must equal what the checkpoint was written with.

        Raises:
            CheckpointError: it is unreadable or belongs to another configuration; shows the difference.
        """
        path = self.last
        if path is None:
            return None
        try:
            state: dict[str, Any] = fabric.load(path, weights_only=True)
        except Exception as error:
            raise CheckpointError(
                f"{path} cannot be read ({type(error).__name__}); delete it to go on from the one before"
            ) from error
        if state.get("format") != FORMAT:
            raise CheckpointError(f"{path} was written by another version of eyespot")
        different = difference(state["signature"], signature)
        if different:
            raise CheckpointError(f"{path} belongs to another configuration:\n  " + "\n  ".join(different))
        return state


def difference(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Every entry in which two nested dicts differ, as "key: old -> new" lines."""
    lines = []
    for key in sorted({*old, *new}, key=str):
        a, b = old.get(key, "absent"), new.get(key, "absent")
        if isinstance(a, dict) and isinstance(b, dict):
            lines += difference(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {a!r} -> {b!r}")
    return lines
