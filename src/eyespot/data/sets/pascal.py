"""PASCAL VOC 2012 for semantic segmentation, and PASCAL-Context for several tasks: 21 classes each.

Of PASCAL-Context sure is, because the readers of MTI-Net's and of SAK's released code agree: folders and lists, which
of two masks is taken, that saliency and normals are other networks' predictions as bytes, that normals count only on
classes which NYU has too, and that boundaries come from the map of 459 classes. The structure of the part annotations
is PASCAL-Part's. Not sure: the axes of the normals, which neither states. They are kept as stored; only that x is
horizontal matters here, because flips negate it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eyespot.data.labelled.base import DensePictures, SegmentationData
from eyespot.data.labelled.dense import open_pairs
from eyespot.data.labelled.edges import class_boundaries
from eyespot.data.labelled.files import FileData, MapReader
from eyespot.data.labelled.label_files import class_table, read_integers, read_mask, read_normals
from eyespot.data.labelled.layout import Layout
from eyespot.data.labelled.samples import Split
from eyespot.data.labelled.stored import read_mat
from eyespot.data.loading.sampling import spread
from eyespot.data.views.paired import parts_or_nothing
from eyespot.dense_tasks import IGNORE, dense_task
from eyespot.files import read_text

VOC = Layout(
    "PASCAL VOC 2012",
    "FOLDER/JPEGImages/NAME.jpg, FOLDER/SegmentationClass/NAME.png and FOLDER/ImageSets/Segmentation/{train,val}.txt "
    "(FOLDER is VOC2012, or the VOCdevkit that holds it)",
    "host.robots.ox.ac.uk/pascal/VOC/voc2012 (VOCtrainval_11-May-2012.tar, no account needed)",
)
CONTEXT = Layout(
    "PASCAL-Context for multi-task learning",
    "FOLDER/ImageSets/Context/{train,val}.txt with one NAME a line, FOLDER/JPEGImages/NAME.jpg, FOLDER/semseg/VOC12/"
    "NAME.png (or semseg/pascal-context/NAME.png), FOLDER/human_parts/NAME.mat, FOLDER/pascal-context/trainval/"
    "NAME.mat (459 classes), FOLDER/sal_distill/NAME.png and FOLDER/normals_distill/NAME.png",
    "the README of MTI-Net (SimonVandenhende/Multi-Task-Learning-PyTorch), InvPT or SAK (innovator-zero/SAK)",
)
# fmt: off
NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on
PART_NAMES = ("background", "head", "torso", "upper arm", "lower arm", "upper leg", "lower leg")
TASKS = {
    "segmentation": dense_task("classes", len(NAMES), names=NAMES),
    "parts": dense_task("classes", len(PART_NAMES), weight=2.0, names=PART_NAMES),
    "saliency": dense_task("saliency"),
    "normals": dense_task("normals"),
    "boundary": dense_task("boundary", max_distance=0.0075),
}
TABLE = class_table({number: number for number in range(len(NAMES))}, ignored=[IGNORE])
PERSON = NAMES.index("person")
NEITHER_SIDE = {"head": 1, "hair": 1, "nose": 1, "mouth": 1, "neck": 2, "torso": 2}
EITHER_SIDE = {"ear": 1, "eye": 1, "ebrow": 1, "uarm": 3, "larm": 4, "hand": 4, "uleg": 5, "lleg": 6, "foot": 6}
"""The parts of a person in PASCAL-Part as classes; those of either side are called "luarm" and "ruarm" there."""

# Of PASCAL-Context's 459 classes in alphabetical order, those whose name NYU's 894 have too, and "tvmonitor".
# fmt: off
NORMAL_CLASSES = (
    3, 4, 6, 9, 10, 11, 13, 15, 17, 18, 22, 23, 29, 30, 33, 34, 36, 37, 38, 39, 41, 43, 46, 49, 50, 51, 53, 55, 56, 59,
    61, 62, 65, 66, 68, 69, 72, 73, 78, 83, 84, 85, 87, 88, 95, 96, 101, 104, 105, 107, 111, 113, 115, 122, 124, 135,
    141, 142, 143, 146, 150, 154, 157, 158, 159, 165, 172, 174, 181, 183, 184, 191, 193, 195, 197, 199, 202, 213, 215,
    216, 219, 220, 223, 225, 228, 230, 232, 233, 238, 239, 242, 243, 246, 250, 251, 252, 255, 260, 261, 263, 269, 272,
    273, 275, 281, 283, 284, 285, 286, 287, 288, 290, 291, 292, 293, 295, 304, 307, 309, 310, 314, 315, 319, 323, 329,
    330, 331, 336, 342, 345, 349, 350, 351, 352, 355, 357, 368, 370, 371, 374, 379, 380, 383, 384, 397, 401, 403, 405,
    407, 408, 411, 412, 413, 414, 417, 419, 421, 423, 427, 429, 430, 432, 440, 441, 442, 443, 444, 446, 454, 457,
)
# fmt: on


def open_voc(
    folder: str | Path, limit: int | None = None, train: str = "train", masks: str = "SegmentationClass"
) -> SegmentationData:
    """VOC 2012's training (1,464) and validation (1,449) pictures with 21 classes; outlines (255) count for nothing.

    Args:
        folder: VOC2012, VOCdevkit, or the folder above.
        limit: at most this many pictures per split, evenly spread.
        train: the list in ImageSets/Segmentation to train on; "trainaug" where you have the 10,582 pictures of SBD.
        masks: the folder of masks; "SegmentationClassAug" where you have those of SBD.

    Raises:
        LayoutError: a missing folder, list, picture or mask.
    """
    base = Path(folder)
    base = next((place for place in (base / "VOC2012", base / "VOCdevkit" / "VOC2012") if place.is_dir()), base)
    known, asked = (_open_split(base, split, masks, limit) for split in (train, "val"))
    return SegmentationData(known, asked, len(NAMES), IGNORE)


def _open_split(base: Path, split: str, masks: str, limit: int | None) -> DensePictures:
    names = read_text(VOC.file(base / "ImageSets" / "Segmentation" / f"{split}.txt")).split()
    pictures, labels = VOC.folder(base / "JPEGImages"), VOC.folder(base / masks)
    pairs = [(pictures / f"{name}.jpg", labels / f"{name}.png") for name in names]
    return open_pairs(pairs, limit, VOC, partial(read_mask, table=TABLE), "voc")


def open_pascal_context_maps(name: str, folder: Path, split: Split, limit: int | None = None) -> PascalContext:
    """PASCAL-Context's 4,998 training or 5,105 validation pictures, up to 500 x 500.

    A picture without a person has no label for "parts", as in SAK's code.

    Args:
        name: what reports call it.
        folder: see `CONTEXT`.
        split: which pictures.
        limit: at most this many, evenly spread.

    Raises:
        LayoutError: a missing list.
    """
    names = read_text(CONTEXT.file(folder / "ImageSets" / "Context" / f"{split}.txt")).split()
    chosen = [names[index] for index in spread(len(names), limit)]
    pictures = [folder / "JPEGImages" / f"{each}.jpg" for each in chosen]
    return PascalContext(name, folder, dict(TASKS), pictures)


@dataclass(frozen=True)
class PascalContext(FileData):
    """See `open_pascal_context_maps`."""

    layout = CONTEXT

    def files(self, task: str, picture: Path) -> list[Path]:
        """See `FileData.files`."""
        name = picture.stem
        context = self._context_of(picture)
        masks = [self.folder / "semseg" / kind / f"{name}.png" for kind in ("VOC12", "pascal-context")]
        return {
            "segmentation": [next((mask for mask in masks if mask.is_file()), masks[0])],
            "parts": [self.folder / "human_parts" / f"{name}.mat"],
            "saliency": [self.folder / "sal_distill" / f"{name}.png"],
            "normals": [self.folder / "normals_distill" / f"{name}.png", context],
            "boundary": [context],
        }[task]

    def maps(self, picture: Path) -> dict[str, MapReader]:
        """See `FileData.maps`."""
        first = {task: self.files(task, picture)[0] for task in self.tasks}
        context = cache(lambda: read_context(self._context_of(picture)))
        return {
            "segmentation": lambda: read_mask(first["segmentation"], TABLE).to(torch.uint8),
            "parts": lambda: parts_or_nothing(read_parts(first["parts"])),
            "saliency": lambda: torch.from_numpy(read_integers(first["saliency"]) > 127).to(torch.uint8),
            "normals": lambda: read_normals(first["normals"]) * torch.from_numpy(np.isin(context(), NORMAL_CLASSES)),
            "boundary": lambda: class_boundaries(torch.from_numpy(context()), ignored=None),
        }

    def _context_of(self, picture: Path) -> Path:
        return self.folder / "pascal-context" / "trainval" / f"{picture.stem}.mat"


def read_context(file: Path) -> np.ndarray:
    """PASCAL-Context's map of 459 classes, int64 [H, W], from `LabelMap` of a .mat file."""
    return read_mat(file, "LabelMap").astype(np.int64)


def read_parts(file: Path) -> Tensor:
    """The parts of all persons in a .mat file of PASCAL-Part, uint8 [H, W], indices of `PART_NAMES`.

    Persons whose parts are not annotated are background; where persons overlap, the later one counts.

    Raises:
        ValueError: a part that no person has.
    """
    objects = _each(read_mat(file, "anno", simplify_cells=True)["objects"])
    parts = torch.zeros(np.shape(objects[0]["mask"]), dtype=torch.uint8)
    for person in objects:
        if int(person["class_ind"]) == PERSON:
            for part in _each(person["parts"]):
                parts[torch.from_numpy(np.asarray(part["mask"], dtype=bool))] = part_class(part["part_name"])
    return parts


def part_class(name: str) -> int:
    """The class of a part of a person by PASCAL-Part's name of it, e.g. 4 for "rlarm"."""
    found = NEITHER_SIDE.get(name) or EITHER_SIDE.get(name[1:])
    if found is None:
        raise ValueError(f"{name!r} is no part of a person in PASCAL-Part")
    return found


def _each(struct: Any) -> Sequence[dict[str, Any]]:
    """A MATLAB struct array as SciPy gives it: a dictionary if it has one element, else a list or an array."""
    return [struct] if isinstance(struct, dict) else list(struct)
