"""Shards: files of rows that many processes write and read at once, none of them waiting for another.

A shard holds any rows, in safetensors: `rows` int64 [n], `checksum` int64 [n], `pictures` int64 [n] (what was in the
picture, see `HasContents.contents`; shards of earlier versions lack it) and `records` uint8 [n, bytes]. It is written
under a temporary name and renamed, so it is there as a whole or not at all. What a reader finds wrong is removed and
named, and its rows count as missing.
"""

from __future__ import annotations

import hashlib
import json
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from eyespot.files import atomic_path

LEFT_BEHIND_SECONDS = 3600.0
"""A temporary file this old is nobody's any more."""

_NUMBERS = ("rows", "checksum", "pictures")


def checksum(record: memoryview, row: int) -> int:
    """CRC-32 of a record's bytes; begun with the row's number, so that a record under another number is noticed."""
    return zlib.crc32(record, row & 0xFFFFFFFF)


def write_shard(folder: Path, rows: Tensor, records: Tensor, pictures: Tensor | None = None) -> Path:
    """Writes rows int64 [n] with their records uint8 [n, bytes] and pictures' contents int64 [n] (or 0) as one shard.

    Its name follows from its content, so that writing the same rows twice makes one file.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    checksums = torch.tensor(
        [checksum(record.data, row) for record, row in zip(records.numpy(), rows.tolist(), strict=True)]
    )
    tensors = {
        "rows": rows,
        "checksum": checksums,
        "pictures": torch.zeros_like(rows) if pictures is None else pictures,
    }
    digest = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors.values())).hexdigest()[:16]
    path = folder / f"rows-{digest}.safetensors"
    _sweep(folder)
    with atomic_path(path) as temporary:
        try:
            save_file({**tensors, "records": records}, temporary)
        except SafetensorError as error:  # how a full disk is told by that library
            raise OSError(str(error)) from error
    return path


def _sweep(folder: Path) -> None:
    """Removes what a process left that was killed while it wrote: a shard is written in seconds."""
    for temporary in folder.glob(".rows-*.tmp"):
        with suppress(FileNotFoundError):  # another process sweeps as well
            if time.time() - temporary.stat().st_mtime > LEFT_BEHIND_SECONDS:
                temporary.unlink()


@dataclass(frozen=True)
class ShardHead:
    """All of a shard but its records.

    Attributes:
        rows: int64 [n].
        checksums: int64 [n].
        pictures: int64 [n]; None in shards of earlier versions.
        start: byte in the file at which the first record begins.
        record_bytes: bytes per row.
    """

    rows: np.ndarray
    checksums: np.ndarray
    pictures: np.ndarray | None
    start: int
    record_bytes: int


def read_head(path: Path) -> ShardHead:
    """What a shard holds, but for the records.

    Raises:
        FileNotFoundError: it is gone.
        ValueError: it is no shard, or cut short.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= size - 8:
            raise ValueError("it is no safetensors file")
        try:
            header = json.loads(file.read(length))
            count, record_bytes = header["records"]["shape"]
            names = [name for name in (*_NUMBERS, "records") if name in header or name != "pictures"]
            places = {name: [8 + length + place for place in header[name]["data_offsets"]] for name in names}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError("its header cannot be read") from error
        sizes = {name: stop - start for name, (start, stop) in places.items()}
        if sizes != {**dict.fromkeys(names, 8 * count), "records": count * record_bytes}:
            raise ValueError("its tensors do not fit together")
        if max(stop for _, stop in places.values()) != size:
            raise ValueError("it is cut short")
        numbers = {name: _read_numbers(file, *places[name]) for name in names if name != "records"}
    pictures = numbers.get("pictures")
    return ShardHead(numbers["rows"], numbers["checksum"], pictures, places["records"][0], record_bytes)


def _read_numbers(file: BinaryIO, start: int, stop: int) -> np.ndarray:
    file.seek(start)
    return np.frombuffer(file.read(stop - start), dtype="<i8")
