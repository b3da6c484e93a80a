"""Reading rows from the shards of one teacher, in any process, while others write more."""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eyespot.contents import SETTLED
from eyespot.distill.cache.config import CacheError
from eyespot.distill.cache.shards import ShardHead, checksum, read_head
from eyespot.files import atomic_path, read_json, understood

DESCRIPTION = "cache.json"
COMPARED = "pictures.npy"
"""What was in the pictures when the rows of shards that do not say so were compared with their teacher."""


class DamagedCacheWarning(UserWarning):
    """A shard that did not hold what was once written; it was removed."""


class ShardReader:
    """The rows that are there, and where.

    It keeps some twenty bytes per row and no open files, so it can be pickled or forked into data workers. When a row
    is missing it looks for new shards, if the folder has changed. A row whose picture has changed since counts as
    missing. A shard in which anything is wrong is removed and named in a `DamagedCacheWarning`; all its rows count as
    missing, so that they are computed again.

    Args:
        folder: of one teacher.
        rows: how many rows there can be.
        pictures: int64 [rows], what is in each row's picture now (`HasContents.contents`); zeros if None.
        comparing: rows that do not say what was in their pictures count as there: they are going to be compared.

    Attributes:
        record_bytes: bytes per row, 0 before the folder is there.
        removed: what was found damaged, "path: reason" each.

    Raises:
        CacheError: rows that do not say what was in their pictures, and were not compared.
    """

    def __init__(self, folder: Path, rows: int, pictures: np.ndarray | None = None, comparing: bool = False) -> None:
        self.folder = folder
        self.pictures = np.zeros(rows, np.int64) if pictures is None else pictures
        self._comparing, self._to_take_over = comparing, False
        self.record_bytes = 0
        # Zeros take no memory until they are written to; shards are therefore counted from 1.
        self._shard = np.zeros(rows, np.int32)
        self._position = np.zeros(rows, np.int32)
        self._checksum = np.zeros(rows, np.uint32)
        self._outdated = np.zeros(rows, bool)
        self._shards: list[tuple[Path, int]] = []
        self._known: set[str] = set()
        self._changed: int | None = None
        self.removed: list[str] = []
        self.refresh()

    @property
    def shards(self) -> int:
        """How many shards are known to be there."""
        return len(self._known)

    @property
    def outdated(self) -> np.ndarray:
        """Rows int64 [n] that are there, but of what their pictures were earlier."""
        return np.flatnonzero(self._outdated & (self._shard == 0))

    def has(self, rows: np.ndarray) -> np.ndarray:
        """[n] bool: which of the rows int64 [n] are there, as far as is known."""
        return self._shard[rows] > 0

    def read(self, rows: np.ndarray) -> tuple[Tensor, np.ndarray]:
        """Records of rows.

        Args:
            rows: int64 [n].

        Returns:
            uint8 [n, record_bytes], and bool [n]: which of them are there. Bytes of the others mean nothing.
        """
        if not self.has(rows).all():
            self.refresh()
        records = torch.empty(len(rows), self.record_bytes, dtype=torch.uint8)
        there = self.has(rows)
        for place in np.flatnonzero(there).tolist():
            there[place] = self._read_one(int(rows[place]), records[place].numpy().data)
        return records, there

    def refresh(self) -> None:
        """Takes in the shards that have come since the last look."""
        try:
            changed = self.folder.stat().st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            return
        if changed == self._changed:
            return
        if not self.record_bytes:
            self.record_bytes = self._recorded_bytes()
        for path in sorted(self.folder.glob("rows-*.safetensors")):
            if path.name not in self._known:
                self._take_in(path)
        # A shard that came in the same tick of the disk's clock, but after the look, must be found by the next one.
        self._changed = changed if time.time_ns() - changed > SETTLED else None

    def _recorded_bytes(self) -> int:
        """Bytes per row, from the description that the folder came with."""
        file = self.folder / DESCRIPTION
        if not file.is_file():
            raise CacheError(f"{file} is gone, without which its rows mean nothing; delete {self.folder}")
        with understood(file, f"delete {self.folder} to make it anew"):
            return int(read_json(file)["record_bytes"])

    def check_all(self) -> None:
        """Reads every record of every shard once; what is wrong ends up in `removed`."""
        self.refresh()
        for number, (path, _) in enumerate(self._shards, start=1):
            try:
                head = read_head(path)
            except FileNotFoundError:
                self._forget(number)
            except ValueError as error:
                self._remove(path, str(error))
                self._forget(number)
            else:
                self._point(number, head)  # also to rows that another shard has too
                self.read(head.rows)

    def _take_in(self, path: Path) -> None:
        try:
            head = read_head(path)
            self._check(head)
        except FileNotFoundError:
            return  # another reader has found it damaged
        except ValueError as error:
            self._remove(path, str(error))
            return
        self._known.add(path.name)
        self._shards.append((path, head.start))
        self._point(len(self._shards), head)

    def _point(self, number: int, head: ShardHead) -> None:
        """From now on the rows of this shard are read from it, but for those whose pictures have changed."""
        current = np.flatnonzero(self._pictures_of(head) == self.pictures[head.rows])
        rows = head.rows[current]
        self._outdated[head.rows] = True
        self._outdated[rows] = False
        self._shard[rows] = number
        self._position[rows] = current
        self._checksum[rows] = head.checksums[current]

    def _pictures_of(self, head: ShardHead) -> np.ndarray:
        """int64 [n]: what was in the pictures of a shard's rows."""
        if head.pictures is not None:
            return head.pictures
        try:
            return np.load(self.folder / COMPARED)[head.rows]
        except FileNotFoundError as error:
            if self._comparing:
                self._to_take_over = True
                return self.pictures[head.rows]
            raise CacheError(
                f"{self.folder} was made by an earlier version, which did not note what was in the pictures. `eyespot "
                "cache`, with the recipe and settings of this run and --verify 100, compares rows with what the "
                "teachers say of the pictures now, and takes the cache over if they agree; or name another cache.folder"
            ) from error

    def take_over(self) -> None:
        """From now on, rows that were compared and do not say of what they are count as those of today's pictures."""
        if not self._to_take_over:
            return
        with atomic_path(self.folder / COMPARED) as temporary, open(temporary, "wb") as file:
            np.save(file, self.pictures)

    def _check(self, head: ShardHead) -> None:
        if head.record_bytes != self.record_bytes:
            raise ValueError(f"it has {head.record_bytes} bytes per row in place of {self.record_bytes}")
        if len(head.rows) and (head.rows.min() < 0 or head.rows.max() >= len(self._shard)):
            raise ValueError("it has rows that cannot be")

    def _read_one(self, row: int, record: memoryview) -> bool:
        """Reads a row's record into place; False if its shard is gone or damaged."""
        number = int(self._shard[row])
        if number == 0:  # its shard was found damaged at an earlier row of this batch
            return False
        path, start = self._shards[number - 1]
        try:
            with open(path, "rb", buffering=0) as file:
                length = os.preadv(file.fileno(), [record], start + int(self._position[row]) * self.record_bytes)
        except FileNotFoundError:  # another reader has found it damaged
            self._forget(number)
            return False
        if length == self.record_bytes and checksum(record, row) == self._checksum[row]:
            return True
        self._remove(path, f"row {row} is not what was written")
        self._forget(number)
        return False

    def _forget(self, number: int) -> None:
        self._shard[self._shard == number] = 0
        self._known.discard(self._shards[number - 1][0].name)

    def _remove(self, path: Path, reason: str) -> None:
        path.unlink(missing_ok=True)
        self.removed.append(f"{path}: {reason}")
        warnings.warn(
            f"{path} is damaged: {reason}. It was removed; its rows are computed again.",
            DamagedCacheWarning,
            stacklevel=2,
        )
