"""Is it still the same data?

Two questions are told apart. The *fingerprint* of data, a hash of names and sizes in bytes, says whether a training can
go on: picture 17 is still picture 17. Its *contents*, a number for each picture, say whether what was computed from a
picture still holds: teacher features, extracted features, scores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from eyespot.contents import number_of


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
    return np.array([number_of([row.tobytes()]) for row in rows], np.int64)
