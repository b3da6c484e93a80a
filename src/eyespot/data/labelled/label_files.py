"""Label maps in files: masks of classes, depth maps, normals, boundaries; and matrices of cameras."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from eyespot.data.labelled.stored import read_stored
from eyespot.data.sources.decode import PictureError
from eyespot.dense_tasks import IGNORE
from eyespot.files import read_text, reason_of

REFUSED = -1
EXIF_ORIENTATION = 0x0112
MASKS = (".png", ".npy", ".npz", ".tif", ".tiff", ".bmp", ".pgm")
DEPTHS = (".npy", ".npz", ".png", ".tif", ".tiff", ".pgm", ".pfm")
"""Suffixes of label files that are looked for, the preferred first."""
SATURATED = 65535
"""In integers of 16 bits: as far as the camera sees, or nothing measured."""
_SHORTEST = 0.5
"""Stored normals shorter than this are no normals: 0 0 0 becomes a little more in bytes."""
_LONGEST = 1.01
"""Entries above this are in another range: of bytes, say."""


def check_size(label: Path, size: tuple[int, int], picture: Path) -> None:
    """Compares a label map of `size` (width, height) with its picture.

    A warning tells of pictures that EXIF data turn without changing their size: whether the label is of the picture as
    it is seen or as it is stored cannot be known.

    Raises:
        ValueError: they are not of one size.
        PictureError: the picture cannot be read.
    """
    stored, turn = _size_and_turn(picture)
    width, height = _upright(stored, turn)
    if size != (width, height):
        hint = "turn the map as EXIF data turn the picture" if size == stored else "resize or register them first"
        raise ValueError(
            f"{label}: the label map is {size[0]}x{size[1]}, its picture {width}x{height}; they must be of one size "
            f"({hint})"
        )
    if turn != 1 and stored == (width, height):
        warnings.warn(
            f"{picture} is turned by its EXIF data, and its size does not say whether {label.name} is: label maps "
            "must be of the pictures as they are seen. Save such pictures turned, without the EXIF entry, to be sure",
            stacklevel=2,
        )


def upright_size(path: Path) -> tuple[int, int]:
    """(width, height) of a picture file after its EXIF rotation, without decoding it.

    Raises:
        PictureError: it cannot be read.
    """
    return _upright(*_size_and_turn(path))


def stored_size(path: Path) -> tuple[int, int]:
    """(width, height) of a picture file as stored, without decoding it; errors as of `upright_size`."""
    with _opened(path) as picture:
        return picture.size


def _size_and_turn(path: Path) -> tuple[tuple[int, int], int]:
    """(width, height) as stored, and the EXIF orientation, 1 to 8."""
    with _opened(path) as picture:
        turn = picture.getexif().get(EXIF_ORIENTATION, 1)
        return picture.size, turn if turn in range(1, 9) else 1


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """A picture file, not decoded; whatever is wrong with it becomes a `PictureError`."""
    try:
        with Image.open(path) as picture:
            yield picture
    except Exception as error:  # see `decode_picture`
        raise PictureError(str(path), reason_of(error)) from error


def _upright(size: tuple[int, int], turn: int) -> tuple[int, int]:
    return size[::-1] if turn in (5, 6, 7, 8) else size


def read_integers(path: Path) -> np.ndarray:
    """One integer per pixel, [H, W], as stored; a palette picture as indices, one of 1 bit as 0 and 1.

    Raises:
        ValueError: several channels, or no integers; see also `read_stored`.
    """
    values = read_stored(path)
    values = values.astype(np.uint8) if values.dtype == bool else values
    if values.ndim != 2:
        raise ValueError(
            f"{path}: expected one class number per pixel, got {values.dtype} {values.shape}; colours do not say "
            "which class they mean: write its number, as grey or palette PNG"
        )
    if values.dtype.kind not in "ui":
        raise ValueError(f"{path}: expected one class number per pixel, got {values.dtype} {values.shape}")
    return values


def read_mask(path: Path, table: Tensor | None = None) -> Tensor:
    """A mask, [H, W] int16 (int32 without a table).

    Args:
        path: see `read_integers`.
        table: the class of each number in the file, `REFUSED` for numbers that must not occur. None keeps the numbers.

    Raises:
        ValueError: a number that the table refuses or does not have; without a table, one below 0 or beyond 31 bits.
    """
    values = torch.from_numpy(read_integers(path).astype(np.int64))
    if table is None:
        if int(values.min()) < 0 or int(values.max()) >= 2**31:
            raise ValueError(
                f"{path}: the mask holds {int(values.min())} to {int(values.max())}; classes are numbered from 0, and "
                "pixels that count for nothing have a number of their own: ignore=255"
            )
        return values.to(torch.int32)
    known = (values >= 0) & (values < len(table))
    mask = table[values.clamp(0, len(table) - 1)]
    refused = values[~known | (mask == REFUSED)]
    if len(refused):
        numbers = ", ".join(map(str, refused.unique()[:5].tolist()))
        raise ValueError(f"{path}: the mask holds {numbers}, which is no class of this data set")
    return mask


def class_table(classes: Mapping[int, int], ignored: Collection[int] = (), other: int = REFUSED) -> Tensor:
    """Table for `read_mask`, int16: of 256 numbers, or as many as are named.

    Args:
        classes: number in the file -> class.
        ignored: numbers of pixels that count for nothing; they become `IGNORE`.
        other: what all other numbers become.
    """
    table = torch.full((max(255, *classes, *ignored) + 1,), other, dtype=torch.int16)
    for number, label in classes.items():
        table[number] = label
    table[list(ignored)] = IGNORE
    return table


def read_depth(path: Path, scale: float = 1e-3, high: float = float("inf")) -> Tensor:
    """A depth map, [H, W] float32 metres, 0 where there is no measurement.

    NaN, infinity, values up to 0 and the largest integer of 16 bits are no measurements.

    Args:
        path: integers in units of `scale`, or floats in metres; for kinds of files see `read_stored`.
        scale: metres per unit of integers.
        high: larger depths are dropped.

    Raises:
        ValueError: not a single channel; see also `read_stored`.
    """
    stored = read_stored(path)
    if stored.ndim != 2 or stored.dtype == bool:
        raise ValueError(
            f"{path}: depth must have a single channel, got {stored.dtype} {stored.shape}; depth in colours (CARLA) "
            "has to be decoded first: save metres as .npy"
        )
    with np.errstate(over="ignore"):
        metres = (stored if stored.dtype.kind == "f" else stored * scale).astype(np.float32)
    kept = np.isfinite(metres) & (metres > 0) & (metres <= high)
    if stored.dtype == np.uint16:
        kept &= stored != SATURATED
    return torch.from_numpy(np.where(kept, metres, np.float32(0)))


def read_normals(file: Path) -> Tensor:
    """Normals in a file, float32 [3, H, W]: unit vectors, or 0 0 0 where there are none.

    Args:
        file: floats [H, W, 3] in [-1, 1], or three bytes whose 0 to 255 are -1 to 1.

    Raises:
        ValueError: not three channels, or larger values; see also `read_stored`.
    """
    stored = read_stored(file)
    if stored.dtype == np.uint8:
        stored = stored.astype(np.float32) * (2 / 255) - 1
    if stored.dtype.kind != "f":
        raise ValueError(f"{file}: normals must be floats or bytes, got {stored.dtype}")
    if stored.ndim != 3 or stored.shape[2] != 3:
        raise ValueError(f"{file}: normals must have three channels, got {stored.shape}")
    with np.errstate(over="ignore"):
        stored = stored.astype(np.float32)
    stored = np.where(np.isfinite(stored).all(axis=2, keepdims=True), stored, np.float32(0))
    if np.abs(stored).max() > _LONGEST:
        raise ValueError(f"{file}: normals must be in [-1, 1], these go up to {np.abs(stored).max():g}")
    normals = torch.from_numpy(stored).permute(2, 0, 1)
    return torch.where(normals.norm(dim=0) < _SHORTEST, 0.0, F.normalize(normals, dim=0)).contiguous()


def read_boundaries(file: Path) -> Tensor:
    """Boundaries in a file, uint8 [H, W], 0 or 1: anything from half of the largest value on is one.

    Raises:
        ValueError: several channels, or NaN; see also `read_stored`.
    """
    stored = read_stored(file)
    if stored.ndim != 2:
        raise ValueError(f"{file}: boundaries must have a single channel, got {stored.shape}")
    largest = stored.max()
    if not np.isfinite(largest):
        raise ValueError(f"{file}: boundaries are marked by numbers, this holds NaN or infinity")
    return torch.from_numpy((stored >= largest / 2) & (largest > 0)).to(torch.uint8)


def read_matrix(path: Path, side: int) -> Tensor:
    """A square matrix in a text file, [side, side] float64.

    Raises:
        ValueError: another shape, or other things than finite numbers.
    """
    lines = [line.partition("#")[0].split() for line in read_text(path).splitlines()]
    rows = [line for line in lines if line]
    if [len(row) for row in rows] != [side] * side:
        raise ValueError(f"{path}: expected a {side}x{side} matrix, got rows of {[len(row) for row in rows]} numbers")
    try:
        matrix = np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"{path}: expected a {side}x{side} matrix of numbers ({error})") from None
    if not np.isfinite(matrix).all():
        raise ValueError(f"{path}: expected a {side}x{side} matrix of numbers, some are NaN or infinite")
    return torch.from_numpy(matrix)
