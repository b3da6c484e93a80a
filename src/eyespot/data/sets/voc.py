"""PASCAL VOC 2012, semantic segmentation."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from eyespot.data.labelled.base import DensePictures, SegmentationData
from eyespot.data.labelled.dense import open_pairs
from eyespot.data.labelled.label_files import class_table, read_mask
from eyespot.data.labelled.layout import Layout
from eyespot.dense_tasks import IGNORE

LAYOUT = Layout(
    "PASCAL VOC 2012",
    "FOLDER/JPEGImages/NAME.jpg, FOLDER/SegmentationClass/NAME.png and FOLDER/ImageSets/Segmentation/{train,val}.txt "
    "(FOLDER is VOC2012, or the VOCdevkit that holds it)",
    "host.robots.ox.ac.uk/pascal/VOC/voc2012 (VOCtrainval_11-May-2012.tar, no account needed)",
)
CLASSES = 21  # background and 20 kinds of objects
TABLE = class_table({number: number for number in range(CLASSES)}, ignored=[255])


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
    return SegmentationData(known, asked, CLASSES, IGNORE)


def _open_split(base: Path, split: str, masks: str, limit: int | None) -> DensePictures:
    names = LAYOUT.file(base / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()
    pictures, labels = LAYOUT.folder(base / "JPEGImages"), LAYOUT.folder(base / masks)
    pairs = [(pictures / f"{name}.jpg", labels / f"{name}.png") for name in names]
    return open_pairs(pairs, limit, LAYOUT, partial(read_mask, table=TABLE), "voc")
