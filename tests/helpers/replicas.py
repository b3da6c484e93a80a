"""Helpers for tests that write tiny replicas of data sets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
from PIL import Image, ImageFile


def save(path: Path, array: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path)
    return path


def photo(path: Path, value: int = 90, height: int = 6, width: int = 8) -> Path:
    return save(path, np.full((height, width, 3), value, dtype=np.uint8))


def mask(path: Path, rows: object) -> Path:
    return save(path, np.asarray(rows, dtype=np.uint8))


def depth(path: Path, millimetres: object) -> Path:
    return save(path, np.asarray(millimetres, dtype=np.uint16))


def text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


@contextmanager
def nothing_decoded() -> Iterator[None]:
    """Fails if a picture file is decoded; its header may be read."""

    def refuse(self: object) -> None:
        raise AssertionError("a picture was decoded")

    with patch.object(ImageFile.ImageFile, "load", refuse):
        yield
