"""NYUD-v2 as multi-task papers use it: 40 classes, depth, surface normals and boundaries.

Sure, because the readers of MTI-Net's and of SAK's released code agree: the folders and lists below, segmentation
stored as class + 1 with 0 for no label, depth in metres. Where the two archives differ (pictures as .jpg or .png,
boundaries and normals as .npy or .png), either is read. Not sure: the axes of the normals, which neither states. They
are kept as stored; only that x is horizontal matters here, because flips negate it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot.data.labelled.files import FileData
from eyespot.data.labelled.label_files import class_table, read_colours, read_depth, read_integers, read_mask
from eyespot.data.labelled.layout import Layout
from eyespot.data.labelled.samples import Split
from eyespot.data.loading.sampling import spread
from eyespot.dense_tasks import dense_task

LAYOUT = Layout(
    "NYUD-v2 for multi-task learning",
    "FOLDER/gt_sets/{train,val}.txt with one NAME a line, FOLDER/images/NAME.jpg (or .png), FOLDER/segmentation/"
    "NAME.png (class + 1, 0 = no label), FOLDER/depth/NAME.npy (metres), FOLDER/normals/NAME.npy (or .png) and "
    "FOLDER/edge/NAME.png (or .npy)",
    "the README of MTI-Net (SimonVandenhende/Multi-Task-Learning-PyTorch), InvPT or SAK (innovator-zero/SAK)",
)
# fmt: off
NAMES = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter",
    "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books",
    "refrigerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand",
    "toilet", "sink", "lamp", "bathtub", "bag", "other structure", "other furniture", "other prop",
)
# fmt: on
TASKS = {
    "segmentation": dense_task("classes", len(NAMES), names=NAMES),
    "depth": dense_task("depth"),
    "normals": dense_task("normals"),
    "boundary": dense_task("boundary", max_distance=0.011),
}
TABLE = class_table({number + 1: number for number in range(len(NAMES))}, ignored=[0])
_PLACES = {
    "segmentation": ("segmentation", (".png",)),
    "depth": ("depth", (".npy",)),
    "normals": ("normals", (".npy", ".png")),
    "boundary": ("edge", (".png", ".npy")),
}
_SHORTEST = 0.5
"""Stored normals shorter than this are no normals: 0 0 0 becomes a little more in bytes."""


@dataclass(frozen=True)
class Nyud(FileData):
    """See `open_nyud`."""

    layout = LAYOUT

    def files(self, task: str, picture: Path) -> list[Path]:
        """See `FileData.files`; the first kind of file that is there."""
        folder, endings = _PLACES[task]
        places = [self.folder / folder / f"{picture.stem}{ending}" for ending in endings]
        return [next((place for place in places if place.is_file()), places[0])]

    def label(self, task: str, picture: Path) -> Tensor:
        """See `FileData.label`."""
        (file,) = self.files(task, picture)
        if task == "segmentation":
            return read_mask(file, TABLE).to(torch.uint8)
        if task == "depth":
            return read_depth(file)
        return read_normals(file) if task == "normals" else read_boundaries(file)


def open_nyud(name: str, folder: Path, split: Split, limit: int | None = None) -> Nyud:
    """NYUD-v2's 795 training or 654 test pictures, 480 x 640.

    Args:
        name: what reports call it.
        folder: see `LAYOUT`.
        split: "val" is the official test set, as in all the papers.
        limit: at most this many pictures, evenly spread.

    Raises:
        LayoutError: a missing list or picture.
    """
    names = LAYOUT.file(folder / "gt_sets" / f"{split}.txt").read_text(encoding="utf-8").split()
    chosen = [names[index] for index in spread(len(names), limit)]
    pictures = [LAYOUT.first(folder / "images" / f"{each}{ending}" for ending in (".jpg", ".png")) for each in chosen]
    return Nyud(name, folder, dict(TASKS), pictures)


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
