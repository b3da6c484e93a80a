"""Is it still the same data?

Two questions are told apart. The *fingerprint* of data, a hash of names and sizes in bytes, says whether a training can
go on: picture 17 is still picture 17. Its *contents*, a number for each picture, say whether what was computed from a
picture still holds: teacher features, extracted features, scores.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

READ_AT_MOST = 2 * 1024**3
"""Bytes of a set of files that are read to tell whether it is the same; larger sets go by sizes and times of change."""

SETTLED = 2 * 10**9
"""Nanoseconds after which a file's time of change is told apart from that of the next change, on any disk."""

_BLOCK = 1024 * 1024


@runtime_checkable
class HasContents(Protocol):
    """Data that can tell each of its pictures from a changed one."""

    def contents(self) -> np.ndarray:
        """int64 [n]: a number for each picture (or label map), another when it or the file it is in changes."""
        ...


class Fingerprinted(Protocol):
    """Data that can tell whether it is the same."""

    def fingerprint(self) -> str:
        """See the module."""
        ...


def fingerprint_of(lines: Iterable[str]) -> str:
    """A 128-bit hash, in hexadecimal, of lines of text in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def files_fingerprint(paths: Iterable[Path], setting: str = "") -> str:
    """Hash of files' names (with their two folders) and sizes in bytes, and of a setting in words."""
    lines = [f"{'/'.join(path.parts[-3:])} {path.stat().st_size}" for path in paths]
    return fingerprint_of([setting, *lines])


def full_fingerprint(data: Fingerprinted) -> str:
    """Hash of all that numbers depend on which are computed from data: its fingerprint and its contents.

    Data without files (a toybox, tensors) says all in its fingerprint, and so must data of your own without `contents`.
    """
    if not isinstance(data, HasContents):
        return data.fingerprint()
    return fingerprint_of([data.fingerprint(), data.contents().astype("<i8").tobytes().hex()])


def contents_of(data: Any) -> np.ndarray:
    """Its contents, int64 [n]; nothing, int64 [0], of data that says all in its fingerprint."""
    return data.contents() if isinstance(data, HasContents) else np.zeros(0, np.int64)


def combined(*numbers: np.ndarray) -> np.ndarray:
    """int64 [n]: one number for the numbers int64 [n] of several files of each picture, in their order."""
    if len(numbers) == 1:
        return numbers[0]
    rows = np.stack(numbers, axis=1).astype("<i8")
    return np.array([_number([row.tobytes()]) for row in rows], np.int64)


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
        return np.array([_number([line.encode()]) for line in times], np.int64)
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
        number = _number(_blocks(place))
        if now.settled():
            self._numbers[place] = (now, number)
        return number


_KNOWN = _Remembered()


def _number(blocks: Iterable[bytes]) -> int:
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
