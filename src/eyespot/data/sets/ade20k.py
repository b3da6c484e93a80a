"""ADE20K, the 150 classes of the scene parsing challenge of 2016."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from eyespot.data.labelled.base import DensePictures, SegmentationData
from eyespot.data.labelled.dense import open_pairs
from eyespot.data.labelled.label_files import class_table, read_mask
from eyespot.data.labelled.layout import Layout
from eyespot.dense_tasks import IGNORE

LAYOUT = Layout(
    "ADE20K",
    "FOLDER/images/{training,validation}/NAME.jpg and FOLDER/annotations/{training,validation}/NAME.png "
    "(FOLDER is ADEChallengeData2016)",
    "sceneparsing.csail.mit.edu (ADEChallengeData2016.zip, no account needed)",
)
CLASSES = 150
# The file holds 0 for "other" and 1 to 150 for the classes.
TABLE = class_table({number: number - 1 for number in range(1, CLASSES + 1)}, ignored=[0])


def open_ade20k(folder: str | Path, limit: int | None = None) -> SegmentationData:
    """ADE20K's training (20,210) and validation (2,000) pictures with 150 classes; label 0 counts for nothing.

    As in EUPE's and DINOv3's protocol (paper notes, C).

    Args:
        folder: ADEChallengeData2016.
        limit: at most this many pictures per split, evenly spread.

    Raises:
        LayoutError: a missing folder or mask.
    """
    train, val = (_open_split(Path(folder), split, limit) for split in ("training", "validation"))
    return SegmentationData(train, val, CLASSES, IGNORE)


def _open_split(folder: Path, split: str, limit: int | None) -> DensePictures:
    pictures = LAYOUT.pictures(folder / "images" / split)
    masks = LAYOUT.folder(folder / "annotations" / split)
    pairs = [(picture, masks / f"{picture.stem}.png") for picture in pictures]
    return open_pairs(pairs, limit, LAYOUT, partial(read_mask, table=TABLE), "ade20k")
