"""RGB-D frames with camera poses as files, in the layout of 7-Scenes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eyespot.data.labelled.label_files import check_size
from eyespot.data.labelled.layout import Layout, list_pictures

LAYOUT = Layout(
    "RGB-D frames",
    "FOLDER/camera-intrinsics.txt (3x3) and, for each frame, FOLDER/NAME.color.jpg, NAME.depth.png (16 bit, "
    "millimetres, 0 or 65535 = no measurement) and NAME.pose.txt (4x4, camera to world, metres)",
    "7-Scenes on Microsoft Research's site, one sequence per folder, or your own camera",
)
MISSING = 65535


def list_frames(folder: Path) -> list[Path]:
    """The colour files of all frames, in order of their names; each has its depth map beside it.

    Raises:
        LayoutError: no frames, or one without a depth map.
        ValueError: a depth map is not of its picture's size.
    """
    colours = [path for path in list_pictures(folder) if path.stem.endswith(".color")] if folder.is_dir() else []
    if not colours:
        raise LAYOUT.missing(f"*.color.jpg in {folder}")
    for colour in colours:
        depth = LAYOUT.file(beside(colour, "depth.png"))
        with Image.open(depth) as picture:
            check_size(depth, picture.size, colour)
    return colours


def beside(colour: Path, ending: str) -> Path:
    """Another file of the frame of a colour file: "depth.png" or "pose.txt"."""
    return colour.with_name(f"{colour.stem.removesuffix('.color')}.{ending}")


def halves(frames: int, where: Path) -> tuple[range, range]:
    """Training and test frames of one sequence: its first and its second half.

    Neighbouring frames of a sequence are near-duplicates, so the split is into contiguous halves, never by turns.

    Raises:
        ValueError: there is one frame only; `where` says of which folder.
    """
    middle = frames // 2
    if middle == 0:
        raise ValueError(f"{where}: one frame cannot be split into training and test frames")
    return range(middle), range(middle, frames)


def read_intrinsics(path: Path) -> Tensor:
    """A 3x3 pinhole matrix in a text file, [3, 3] float64.

    Raises:
        LayoutError: no such file.
        ValueError: another shape.
    """
    return read_matrix(path, 3)


def read_matrix(path: Path, side: int) -> Tensor:
    """A square matrix in a text file, [side, side] float64; raises as `read_intrinsics`."""
    matrix = np.loadtxt(LAYOUT.file(path), ndmin=2)
    if matrix.shape != (side, side):
        raise ValueError(f"{path}: expected a {side}x{side} matrix, got {matrix.shape}")
    return torch.from_numpy(matrix)
