"""Pictures with masks in parallel folders: one's own, or CamVid's."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from eyespot.data.labelled.base import DensePictures, SegmentationData
from eyespot.data.labelled.dense import open_pairs
from eyespot.data.labelled.label_files import REFUSED, read_mask
from eyespot.data.labelled.layout import Layout
from eyespot.data.sets import camvid_maps as camvid
from eyespot.dense_tasks import IGNORE

LAYOUT = Layout("pictures with masks", "FOLDER/{train,val}/images/NAME.jpg and FOLDER/{train,val}/annotations/NAME.png")
CAMVID = camvid.LAYOUT
CAMVID_CLASSES, CAMVID_IGNORE = len(camvid.NAMES), camvid.VOID


def open_mask_folder(
    folder: str | Path, limit: int | None = None, ignore: int | None = None, classes: int | None = None
) -> SegmentationData:
    """Reads train/images, train/annotations, val/images and val/annotations; masks carry the picture's name, as PNG.

    Args:
        folder: the folder that holds `train` and `val`.
        limit: at most this many pictures per split, evenly spread.
        ignore: label of pixels that count for nothing; 255 by default, 11 in a folder called `camvid`.
        classes: how many there are. By default the largest label of both splits plus one, for which every mask is
            looked at once; give it for a large data set.

    Raises:
        LayoutError: a missing folder or mask.
        ValueError: a mask of another size than its picture, one that is not a single-channel integer picture, or a
            label that is neither below `classes` nor `ignore`. If `classes` is given, only when a mask is looked at.
    """
    folder = Path(folder)
    if ignore is None:
        ignore = CAMVID_IGNORE if folder.resolve().name.lower() == "camvid" else IGNORE
    table = None if classes is None else _table(classes, ignore)
    setting = "" if classes is None else f"{classes} classes, {ignore} ignored"
    train, val = (_open_split(folder / split, limit, table, setting) for split in ("train", "val"))
    if classes is None:
        classes = max(_largest(split.labels, ignore) for split in (train, val)) + 1
    return SegmentationData(train, val, classes, ignore)


def open_camvid(folder: str | Path, limit: int | None = None) -> SegmentationData:
    """CamVid with SegNet's 11 classes, whatever the folder is called; see `open_mask_folder`."""
    return open_mask_folder(folder, limit, CAMVID_IGNORE, CAMVID_CLASSES)


def _open_split(split: Path, limit: int | None, table: Tensor | None, setting: str) -> DensePictures:
    pictures = LAYOUT.pictures(split / "images")
    masks = LAYOUT.folder(split / "annotations")
    pairs = [(picture, masks / f"{picture.stem}.png") for picture in pictures]
    return open_pairs(pairs, limit, LAYOUT, partial(read_mask, table=table), setting)


def _table(classes: int, ignore: int) -> Tensor:
    table = torch.full((max(classes, ignore + 1),), REFUSED, dtype=torch.int16)
    table[:classes] = torch.arange(classes)
    table[ignore] = ignore
    return table


def _largest(labels: Iterable[Tensor], ignore: int) -> int:
    return max((int(kept.max()) for label in labels if len(kept := label[label != ignore])), default=0)
