"""Features of many pictures, written once and read often: on disk, where they outlive the process, or in memory."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eyespot.features import Features
from eyespot.files import CannotWriteError, atomic_write_text, free_bytes, write_errors_named
from eyespot.locks import require_same_folder

FILES = ("summary", "patches")
BLOCK = 512
"""Bytes of what `st_blocks` counts, whatever the disk."""

CANNOT_RESERVE = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""What a disk answers that cannot reserve space."""

_TORCH_TYPES: dict[type, torch.dtype] = {np.float16: torch.float16, np.float32: torch.float32}


class FeatureStore:
    """Three arrays: summaries, patches, and which rows are there.

    On disk they are files of full size whose space is reserved before anything is computed. They are memory-mapped to
    be read, so that what is not looked at takes no memory, and written as files: through the map, a full disk would be
    a SIGBUS. A row is marked only after it was written, so a killed process leaves no half-written row that counts.

    Args:
        root: folder of all stores; each setting has a sub-folder of its own. None keeps the arrays in memory.
        setting: everything that the features depend on (model, weights, pictures, sizes), JSON-able.
        rows: number of pictures (or views).
        summary_type, patch_type: how numbers are stored, np.float16 or np.float32.

    Raises:
        CannotWriteError: the disk has no room; says how much is needed. What is there stays.
    """

    def __init__(
        self,
        root: Path | None,
        setting: dict[str, Any],
        rows: int,
        summary_type: type[np.floating] = np.float16,
        patch_type: type[np.floating] = np.float16,
    ) -> None:
        types = {"summary": np.dtype(summary_type).name, "patches": np.dtype(patch_type).name}
        self.setting = {**setting, "rows": rows, "types": types}
        self.rows = rows
        self.types = {"summary": summary_type, "patches": patch_type}
        self._arrays: dict[str, np.ndarray] = {}
        self.folder: Path | None = None
        if root is not None:
            text = json.dumps(self.setting, sort_keys=True, indent=1)
            self.folder = root / hashlib.sha256(text.encode()).hexdigest()[:16]
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic_write_text(self.folder / "setting.json", text)
        self.filled = self._array("filled", np.uint8, (rows,))

    def has(self, rows: Tensor) -> Tensor:
        """[N] bool: which of the rows [N] int64 are there."""
        return torch.from_numpy(np.asarray(self.filled[rows.numpy()]) == 1)

    def write(self, rows: Tensor, features: Features) -> None:
        """Stores features of rows [N] int64.

        Raises:
            ValueError: features that are NaN, infinite, or beyond the range of the stored type.
            CannotWriteError: the disk has no room, or the like; rows written before stay.
        """
        where = rows.numpy()
        values = {"summary": features.summary, "patches": features.patches}
        arrays = self._open({name: tuple(value.shape[1:]) for name, value in values.items()})
        stored = {name: value.cpu().to(_TORCH_TYPES[self.types[name]]) for name, value in values.items()}
        if not all(bool(value.isfinite().all()) for value in stored.values()):
            raise ValueError(
                f"{self.setting.get('model', 'the encoder')} gives features that are NaN, infinite or beyond "
                f"{self.setting['types']['patches']}"
            )
        for name, value in stored.items():
            self._put(name, arrays[name], where, value.numpy())
        self._put("filled", self.filled, where, np.ones(len(where), np.uint8))

    def read(self, rows: Tensor) -> Features:
        """Features of rows [N] int64, in float32."""
        arrays = self._open(None)
        where = rows.numpy()
        return Features(*(torch.from_numpy(arrays[name][where]) for name in FILES)).float()

    def all(self) -> Features:
        """All rows as they are stored, without reading them: a tensor's pages come from the file when looked at."""
        arrays = self._open(None)
        return Features(*(torch.from_numpy(arrays[name]) for name in FILES))

    def _open(self, shapes: dict[str, tuple[int, ...]] | None) -> dict[str, np.ndarray]:
        """The two arrays; the first features ever written tell their shapes."""
        if not self._arrays:
            shapes = self._shapes(shapes)
            self._arrays = {name: self._array(name, self.types[name], (self.rows, *shapes[name])) for name in FILES}
        return self._arrays

    def _shapes(self, shapes: dict[str, tuple[int, ...]] | None) -> dict[str, tuple[int, ...]]:
        file = self.folder / "shape.json" if self.folder is not None else None
        if file is not None and not file.exists() and shapes is not None:
            atomic_write_text(file, json.dumps(shapes))
        found = json.loads(file.read_text()) if file is not None and file.exists() else shapes
        if found is None:
            raise ValueError("nothing has been stored yet")
        return {name: tuple(shape) for name, shape in found.items()}

    def _array(self, name: str, kind: type, shape: tuple[int, ...]) -> np.ndarray:
        if self.folder is None:
            return np.zeros(shape, kind)
        path = self._path(name, np.dtype(kind))
        reserve(path, int(np.prod(shape)) * np.dtype(kind).itemsize)
        return np.memmap(path, dtype=kind, mode="r+", shape=shape)

    def _path(self, name: str, kind: np.dtype) -> Path:
        assert self.folder is not None
        return self.folder / f"{name}.{kind.name}"

    def _put(self, name: str, array: np.ndarray, where: np.ndarray, values: np.ndarray) -> None:
        if self.folder is None:
            array[where] = values
            return
        path, row_bytes = self._path(name, array.dtype), array[:1].nbytes
        require_same_folder(Path(os.path.realpath(path)))
        with write_errors_named(path), open(path, "r+b") as file:
            for row, value in zip(where.tolist(), np.ascontiguousarray(values), strict=True):
                file.seek(row * row_bytes)
                file.write(value.tobytes())


def reserve(path: Path, size: int) -> None:
    """Makes a file so large and takes the space on the disk; what is in it stays, the rest reads as zeros.

    Where the system cannot reserve (macOS, some network disks), the space is only compared with what is free.

    Raises:
        CannotWriteError: there is not so much; a file that was not there before is removed again.
    """
    new = not path.exists()
    try:
        with write_errors_named(path), open(path, "ab") as file:
            held = os.fstat(file.fileno())
            missing, free = size - getattr(held, "st_blocks", 0) * BLOCK, free_bytes(path.parent)
            if free is not None and missing > free:
                raise CannotWriteError(
                    f"{path} needs {missing / 2**20:,.1f} MiB more, {path.parent} has {free / 2**20:,.1f} MiB free. "
                    "Make room and run the same command again; what was measured stays"
                )
            if hasattr(os, "posix_fallocate") and size:
                try:
                    os.posix_fallocate(file.fileno(), 0, size)
                except OSError as error:
                    if error.errno not in CANNOT_RESERVE:
                        raise
            file.truncate(size)
    except OSError:
        if new:
            path.unlink(missing_ok=True)
        raise
