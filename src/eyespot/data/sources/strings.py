"""Many strings in little memory, so that millions of paths can be shared by all data workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np


class StringTable:
    """An unchangeable sequence of strings, kept as one array of bytes and one of ends.

    A list of Python strings takes several times as much, and takes it again in every forked worker: reading an object
    writes to its reference count, which copies its page of memory.

    Args:
        strings: any text; file names that are no valid UTF-8 are kept as Python gives them.
    """

    def __init__(self, strings: Iterable[str]) -> None:
        encoded = [text.encode("utf-8", "surrogateescape") for text in strings]
        self._bytes = np.frombuffer(b"".join(encoded), np.uint8)
        self._ends = np.cumsum([0, *(len(text) for text in encoded)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise IndexError(f"string {index} of {len(self)}")
        index %= len(self)
        return self._bytes[self._ends[index] : self._ends[index + 1]].tobytes().decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))
