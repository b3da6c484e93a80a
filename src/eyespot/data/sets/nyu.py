"""NYU Depth v2: metric depth and normals as BTS prepared it, and several tasks as multi-task papers pass it on.

BTS's archive has depth alone. Of the other (NYUD-v2) sure is, because the readers of MTI-Net's and of SAK's released
code agree: its folders and lists, segmentation stored as class + 1 with 0 for no label, depth in metres. Where the two
archives of it differ (pictures as .jpg or .png, boundaries and normals as .npy or .png), either is read. Not sure: the
axes of the normals, which neither states. They are kept as stored; only that x is horizontal matters here, because
flips negate it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from eyespot.data.labelled.base import DensePictures, DepthData, NormalsData
from eyespot.data.labelled.dense import open_pairs
from eyespot.data.labelled.files import FileData, MapReader
from eyespot.data.labelled.geometry import depth_to_normals
from eyespot.data.labelled.label_files import class_table, read_boundaries, read_depth, read_mask, read_normals
from eyespot.data.labelled.layout import Layout
from eyespot.data.labelled.samples import Split
from eyespot.data.loading.sampling import spread
from eyespot.dense_tasks import dense_task
from eyespot.files import read_text

BTS = Layout(
    "NYUv2",
    "FOLDER/nyudepthv2_train_files_with_gt.txt and FOLDER/nyudepthv2_test_files_with_gt.txt, whose lines are "
    "PICTURE DEPTH FOCAL, with the training files below FOLDER/sync and the test files below "
    "FOLDER/official_splits/test (BTS); or FOLDER/nyu_train.txt and FOLDER/nyu_test.txt with all files below FOLDER "
    "(BinsFormer)",
    "the BTS repository (cleinc/bts: sync.zip, the script for the official test split, and train_test_inputs/*.txt), "
    "or the ready archive that the BinsFormer repository (zhyever/Monocular-Depth-Estimation-Toolbox) links to",
)
_LISTS = {
    "train": ("nyudepthv2_train_files_with_gt.txt", "nyu_train.txt"),
    "test": ("nyudepthv2_test_files_with_gt.txt", "nyu_test.txt"),
}
_BASES = {"train": ("sync", "train", "."), "test": ("official_splits/test", "test", ".")}
SIZE = (480, 640)
CROP = (slice(45, 471), slice(41, 601))
"""Rows and columns of the test pictures that are measured (Eigen et al., 2014)."""
TRAIN_BOX = (43, 45, 608, 472)
"""Left, top, right and bottom of training pictures without their white border, as BTS and after it DINOv3 cut them."""
LOW, HIGH = 1e-3, 10.0
# The toolbox of NYUv2 counts pixels from 1 at their centres; our coordinates have the first centre at 0.5.
INTRINSICS = torch.tensor(
    [[518.857901, 0, 325.582449 - 0.5], [0, 519.469611, 253.736166 - 0.5], [0, 0, 1]], dtype=torch.float64
)

MAPS = Layout(
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


def open_nyu(folder: str | Path, limit: int | None = None, crop: bool = True) -> DepthData:
    """NYUv2's 24,231 training pictures of BTS and the 654 official test pictures, 480 x 640, up to 10 m.

    As in EUPE's and DINOv3's protocol (paper notes, C).

    Args:
        folder: see `BTS`.
        limit: at most this many pictures per split, evenly spread.
        crop: only the rows 45 to 470 and columns 41 to 600 of the test pictures are measured (Eigen et al., 2014), and
            augmented views of training pictures are cut from within the white border.

    Raises:
        LayoutError: a missing list, picture or depth map.
        ValueError: when a test label is looked at: it is not 480 x 640, so the crop is not defined.
    """
    read = partial(read_depth, high=HIGH)
    train, test = _open_both(Path(folder), limit, read, crop, "depth")
    return DepthData(train, test, LOW, HIGH, TRAIN_BOX if crop else None)


def open_nyu_normals(folder: str | Path, limit: int | None = None, crop: bool = True, window: int = 5) -> NormalsData:
    """Surface normals of the same depth maps, by `depth_to_normals`.

    Ours: published numbers for NYUv2 use other, smoothed normals (of Ladicky et al. or of GeoNet), so they differ.

    Args:
        folder: see `BTS`.
        limit: at most this many pictures per split, evenly spread.
        crop: the same rows and columns of the test pictures.
        window: see `depth_to_normals`.
    """

    def read(path: Path) -> Tensor:
        return depth_to_normals(read_depth(path, high=HIGH), INTRINSICS, window)

    return NormalsData(*_open_both(Path(folder), limit, read, crop, f"normals, window {window}"))


def _open_both(
    folder: Path, limit: int | None, read: Callable[[Path], Tensor], crop: bool, setting: str
) -> tuple[DensePictures, DensePictures]:
    cropped = partial(_read_cropped, read) if crop else read
    return (
        open_pairs(_pairs(folder, "train"), limit, BTS, read, setting, "depth map"),
        open_pairs(_pairs(folder, "test"), limit, BTS, cropped, f"{setting}, crop {crop}", "depth map"),
    )


def _pairs(folder: Path, split: str) -> list[tuple[Path, Path]]:
    listed = BTS.first(folder / name for name in _LISTS[split])
    lines = [line.split() for line in read_text(listed).splitlines() if line.strip()]
    if not lines or min(map(len, lines)) < 2:
        raise ValueError(f"{listed}: every line must name a picture and a depth map")
    names = [(line[0].lstrip("/"), line[1].lstrip("/")) for line in lines]
    known = BTS.first(folder / base / names[0][0] for base in _BASES[split])
    base = known.parents[len(Path(names[0][0]).parts) - 1]
    return [(base / picture, base / depth) for picture, depth in names]


def _read_cropped(read: Callable[[Path], Tensor], path: Path) -> Tensor:
    """A label map [H, W] or [C, H, W] with 0 outside the crop."""
    label = read(path)
    if tuple(label.shape[-2:]) != SIZE:
        raise ValueError(
            f"{path}: the Eigen crop is for 480x640, not {label.shape[-2]}x{label.shape[-1]}; use crop=false"
        )
    kept = torch.zeros_like(label)
    kept[..., CROP[0], CROP[1]] = label[..., CROP[0], CROP[1]]
    return kept


def open_nyud_maps(name: str, folder: Path, split: Split, limit: int | None = None) -> Nyud:
    """NYUD-v2's 795 training or 654 test pictures, 480 x 640.

    Args:
        name: what reports call it.
        folder: see `MAPS`.
        split: "val" is the official test set, as in all the papers.
        limit: at most this many pictures, evenly spread.

    Raises:
        LayoutError: a missing list or picture.
    """
    names = read_text(MAPS.file(folder / "gt_sets" / f"{split}.txt")).split()
    chosen = [names[index] for index in spread(len(names), limit)]
    pictures = [MAPS.first(folder / "images" / f"{each}{ending}" for ending in (".jpg", ".png")) for each in chosen]
    return Nyud(name, folder, dict(TASKS), pictures)


@dataclass(frozen=True)
class Nyud(FileData):
    """See `open_nyud_maps`."""

    layout = MAPS

    def files(self, task: str, picture: Path) -> list[Path]:
        """See `FileData.files`; the first kind of file that is there."""
        folder, endings = _PLACES[task]
        places = [self.folder / folder / f"{picture.stem}{ending}" for ending in endings]
        return [next((place for place in places if place.is_file()), places[0])]

    def maps(self, picture: Path) -> dict[str, MapReader]:
        """See `FileData.maps`; a file for each."""
        file = {task: self.files(task, picture)[0] for task in self.tasks}
        return {
            "segmentation": lambda: read_mask(file["segmentation"], TABLE).to(torch.uint8),
            "depth": lambda: read_depth(file["depth"]),
            "normals": lambda: read_normals(file["normals"]),
            "boundary": lambda: read_boundaries(file["boundary"]),
        }
