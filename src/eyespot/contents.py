"""What is in files, as numbers that are others when the bytes are."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

READ_AT_MOST = 2 * 1024**3
"""Bytes of a set of files that are read to tell whether it is the same; larger sets go by sizes and times of change."""

SETTLED = 2 * 10**9
"""Nanoseconds after which a file's time of change is told apart from that of the next change, on any disk."""

_BLOCK = 1024 * 1024


class Place(NamedTuple):
    """Some bytes in a file; all of it if no length is given."""

    path: str | Path
    start: int = 0
    length: int | None = None


def file_contents(places: Sequence[Place | Path | str]) -> np.ndarray:
    """A number for each file, or part of one, that is another when its bytes are.

    The bytes are read (and remembered within the process, as long as a file's times, size and inode stay). Of sets
    larger than `READ_AT_MOST` nothing is read: there the numbers go by the files' sizes and times of change, so that a
    copy without its times counts as changed.

    Args:
        places: files, or places in files.

    Returns:
        int64 [n].

    Raises:
        OSError: a file is not there.
    """
    wanted = [place if isinstance(place, Place) else Place(place) for place in places]
    states = {path: os.stat(path) for path in dict.fromkeys(place.path for place in wanted)}
    size = sum(states[path].st_size if length is None else length for path, _, length in wanted)
    if size > READ_AT_MOST:
        times = (f"{states[place.path].st_size} {states[place.path].st_mtime_ns} {place[1:]}" for place in wanted)
        return np.array([number_of([line.encode()]) for line in times], np.int64)
    return np.array([_KNOWN.number(place, states[place.path]) for place in wanted], np.int64)


class FileState(NamedTuple):
    """What the system says of a file: as long as it is the same, so are its bytes, if it is settled."""

    size: int
    modified: int
    changed: int
    inode: int
    device: int

    @classmethod
    def of(cls, state: os.stat_result) -> FileState:
        """From what `os.stat` gives."""
        return cls(state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino, state.st_dev)

    def settled(self) -> bool:
        """Whether another change would be seen in the times: not so soon after one, for disks' clocks are coarse."""
        return time.time_ns() - max(self.modified, self.changed) > SETTLED


class _Remembered:
    """Numbers of files that were read in this process."""

    def __init__(self) -> None:
        self._numbers: dict[Place, tuple[FileState, int]] = {}

    def number(self, place: Place, state: os.stat_result) -> int:
        """That of a place, in a file of which the system says `state`."""
        now = FileState.of(state)
        known, number = self._numbers.get(place, (None, 0))
        if known == now:
            return number
        number = number_of(_blocks(place))
        if now.settled():
            self._numbers[place] = (now, number)
        return number


_KNOWN = _Remembered()


def number_of(blocks: Iterable[bytes]) -> int:
    """An int64 that follows from bytes, given in blocks."""
    digest = hashlib.blake2b(digest_size=8)
    for block in blocks:
        digest.update(block)
    return int.from_bytes(digest.digest(), "little", signed=True)


def _blocks(place: Place) -> Iterator[bytes]:
    with open(place.path, "rb", buffering=0) as file:
        file.seek(place.start)
        left = place.length
        while block := file.read(_BLOCK if left is None else min(left, _BLOCK)):
            yield block
            left = None if left is None else left - len(block)
