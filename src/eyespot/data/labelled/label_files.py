"""Label maps in files: masks of classes, depth maps, normals, boundaries; and matrices of cameras."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from eyespot.dense_tasks import IGNORE

REFUSED = -1
EXIF_ORIENTATION = 0x0112
_SHORTEST = 0.5
"""Stored normals shorter than this are no normals: 0 0 0 becomes a little more in bytes."""


def check_size(label: Path, size: tuple[int, int], picture: Path) -> None:
    """Raises a ValueError if a label map of `size` (width, height) is not of its picture's size."""
    width, height = upright_size(picture)
    if size != (width, height):
        raise ValueError(
            f"{label}: the label map is {size[0]}x{size[1]}, its picture {width}x{height}; they must be of one size "
            "(resize or register them first)"
        )


def read_integers(path: Path) -> np.ndarray:
    """A PNG with one integer per pixel, [H, W]; a palette picture as indices, one of 1 bit as 0 and 1.

    Raises:
        ValueError: several channels, or no integers.
    """
    with Image.open(path) as picture:
        values = np.asarray(picture)
    values = values.astype(np.uint8) if values.dtype == bool else values
    if values.ndim != 2 or values.dtype.kind not in "ui":
        raise ValueError(f"{path}: expected one class number per pixel, got {values.dtype} {values.shape}")
    return values


def read_mask(path: Path, table: Tensor | None = None) -> Tensor:
    """A mask, [H, W] int16 (int32 without a table).

    Args:
        path: see `read_integers`.
        table: the class of each number in the file, `REFUSED` for numbers that must not occur. None keeps the numbers.

    Raises:
        ValueError: a number that the table refuses or does not have.
    """
    values = torch.from_numpy(read_integers(path).astype(np.int64))
    if table is None:
        return values.to(torch.int32)
    known = (values >= 0) & (values < len(table))
    mask = table[values.clamp(0, len(table) - 1)]
    refused = values[~known | (mask == REFUSED)]
    if len(refused):
        numbers = ", ".join(map(str, refused.unique()[:5].tolist()))
        raise ValueError(f"{path}: the mask holds {numbers}, which is no class of this data set")
    return mask


def class_table(classes: Mapping[int, int], ignored: Collection[int] = (), other: int = REFUSED) -> Tensor:
    """Table for `read_mask`: [256] int16.

    Args:
        classes: number in the file -> class.
        ignored: numbers of pixels that count for nothing; they become `IGNORE`.
        other: what all other numbers become.
    """
    table = torch.full((256,), other, dtype=torch.int16)
    for number, label in classes.items():
        table[number] = label
    table[list(ignored)] = IGNORE
    return table


def read_depth(path: Path, scale: float = 1e-3, high: float = float("inf"), missing: int | None = None) -> Tensor:
    """A depth map, [H, W] float32 metres, 0 where there is no measurement.

    Args:
        path: a PNG of integers, or a .npy file of floats in metres (NaN, infinity and values up to 0 count as
            unmeasured).
        scale: metres per unit of a PNG.
        high: larger depths are dropped.
        missing: a value in the file that also means "no measurement".

    Raises:
        ValueError: not a single channel.
    """
    if path.suffix == ".npy":
        stored = np.load(path)
        metres = np.nan_to_num(stored.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    else:
        stored = read_integers(path)
        metres = (stored * scale).astype(np.float32)
    if metres.ndim != 2:
        raise ValueError(f"{path}: depth must have a single channel, got {metres.shape}")
    kept = (metres > 0) & (metres <= high)
    if missing is not None:
        kept &= stored != missing
    return torch.from_numpy(np.where(kept, metres, np.float32(0)))


def upright_size(path: Path) -> tuple[int, int]:
    """(width, height) of a picture file after its EXIF rotation, without decoding it."""
    with Image.open(path) as picture:
        turned = picture.getexif().get(EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
        return (picture.height, picture.width) if turned else (picture.width, picture.height)


def read_colours(path: Path) -> np.ndarray:
    """A PNG with three values per pixel, uint8 [H, W, 3].

    Raises:
        ValueError: other than three channels of bytes.
    """
    with Image.open(path) as picture:
        values = np.asarray(picture)
    if values.dtype != np.uint8 or values.ndim != 3 or values.shape[2] != 3:
        raise ValueError(f"{path}: expected three bytes per pixel, got {values.dtype} {values.shape}")
    return values


def read_normals(file: Path) -> Tensor:
    """Normals in a file, float32 [3, H, W]: unit vectors, or 0 0 0 where there are none.

    Args:
        file: .npy [H, W, 3] in [-1, 1], or a picture whose bytes 0 to 255 are -1 to 1.

    Raises:
        ValueError: not three channels.
    """
    stored = np.load(file) if file.suffix == ".npy" else read_colours(file).astype(np.float32) * (2 / 255) - 1
    if stored.ndim != 3 or stored.shape[2] != 3:
        raise ValueError(f"{file}: normals must have three channels, got {stored.shape}")
    normals = torch.from_numpy(np.nan_to_num(stored.astype(np.float32))).permute(2, 0, 1)
    return torch.where(normals.norm(dim=0) < _SHORTEST, 0.0, F.normalize(normals, dim=0)).contiguous()


def read_boundaries(file: Path) -> Tensor:
    """Boundaries in a file, uint8 [H, W], 0 or 1: .npy or .png, anything from half of the largest value on is one."""
    stored = np.load(file) if file.suffix == ".npy" else read_integers(file)
    if stored.ndim != 2:
        raise ValueError(f"{file}: boundaries must have a single channel, got {stored.shape}")
    largest = stored.max()
    return torch.from_numpy((stored >= largest / 2) & (largest > 0)).to(torch.uint8)


def read_matrix(path: Path, side: int) -> Tensor:
    """A square matrix in a text file, [side, side] float64.

    Raises:
        ValueError: another shape.
    """
    matrix = np.loadtxt(path, ndmin=2)
    if matrix.shape != (side, side):
        raise ValueError(f"{path}: expected a {side}x{side} matrix, got {matrix.shape}")
    return torch.from_numpy(matrix)
