"""Cityscapes, fine annotations, the 19 classes that are evaluated."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from eyespot.data.labelled.base import DensePictures, SegmentationData
from eyespot.data.labelled.dense import open_pairs
from eyespot.data.labelled.label_files import class_table, read_mask
from eyespot.data.labelled.layout import Layout
from eyespot.dense_tasks import IGNORE

LAYOUT = Layout(
    "Cityscapes",
    "FOLDER/leftImg8bit/{train,val}/CITY/NAME_leftImg8bit.png and "
    "FOLDER/gtFine/{train,val}/CITY/NAME_gtFine_labelIds.png",
    "cityscapes-dataset.com (account needed: leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip)",
)
NUMBERS = {
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
"""The number in `*_labelIds.png` of each class; all other numbers count for nothing."""

TABLE = class_table({number: label for label, number in enumerate(NUMBERS)}, other=IGNORE)
ENDING = "_leftImg8bit.png"


def open_cityscapes(folder: str | Path, limit: int | None = None) -> SegmentationData:
    """Cityscapes' training (2,975) and validation (500) pictures with 19 classes.

    Args:
        folder: holds leftImg8bit and gtFine.
        limit: at most this many pictures per split, spread evenly over the cities.

    Raises:
        LayoutError: a missing folder or mask, or no pictures.
    """
    train, val = (_open_split(Path(folder), split, limit) for split in ("train", "val"))
    return SegmentationData(train, val, len(NUMBERS), IGNORE)


def _open_split(folder: Path, split: str, limit: int | None) -> DensePictures:
    pictures = LAYOUT.folder(folder / "leftImg8bit" / split)
    masks = LAYOUT.folder(folder / "gtFine" / split)
    pairs = [
        (picture, masks / picture.parent.name / f"{picture.name.removesuffix(ENDING)}_gtFine_labelIds.png")
        for picture in sorted(pictures.glob(f"*/*{ENDING}"))
    ]
    if not pairs:
        raise LAYOUT.missing(f"pictures in {pictures}")
    return open_pairs(pairs, limit, LAYOUT, partial(read_mask, table=TABLE), "cityscapes")
