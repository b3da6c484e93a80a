"""Pictures with masks in parallel folders, the layout of CamVid and (below its own prefix) ADE20K."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eyespot.evaluate.datasets.base import (
    DensePictures,
    FilePictures,
    LayoutError,
    SegmentationData,
    list_pictures,
    spread,
    upright_size,
)

EXPECTED = "expected FOLDER/{train,val}/images/NAME.jpg and FOLDER/{train,val}/annotations/NAME.png"
IGNORE_OF_FOLDER = {"camvid": 11}  # the 11-class CamVid of SegNet marks "void" so
DEFAULT_IGNORE = 255


def open_mask_folder(folder: str | Path, limit: int | None = None, ignore: int | None = None) -> SegmentationData:
    """Reads train/images, train/annotations, val/images and val/annotations; masks carry the picture's name, as PNG.

    The number of classes is the largest label of both splits plus one.

    Args:
        folder: the folder that holds `train` and `val`.
        limit: at most this many pictures per split, evenly spread.
        ignore: label of pixels that count for nothing; 255 by default, 11 in a folder called `camvid`.

    Raises:
        LayoutError: a missing folder or mask.
        ValueError: a mask of another size than its picture, or one that is not a single-channel integer picture.
    """
    folder = Path(folder)
    if ignore is None:
        ignore = IGNORE_OF_FOLDER.get(folder.resolve().name.lower(), DEFAULT_IGNORE)
    train, val = (_open_split(folder / split, limit) for split in ("train", "val"))
    largest = max(_largest(label, ignore) for split in (train, val) for label in split.labels)
    return SegmentationData(train, val, largest + 1, ignore)


def _open_split(split: Path, limit: int | None) -> DensePictures:
    for part in (split / "images", split / "annotations"):
        if not part.is_dir():
            raise LayoutError(f"no folder {part}; {EXPECTED}")
    paths = list_pictures(split / "images")
    if not paths:
        raise LayoutError(f"no pictures in {split / 'images'}; {EXPECTED}")
    paths = [paths[index] for index in spread(len(paths), limit)]
    return DensePictures(FilePictures(paths), [_read_mask(path) for path in paths])


def _read_mask(picture: Path) -> Tensor:
    path = picture.parents[1] / "annotations" / f"{picture.stem}.png"
    if not path.is_file():
        raise LayoutError(f"no mask {path} for {picture.name}; {EXPECTED}")
    width, height = upright_size(picture)
    with Image.open(path) as mask:
        if mask.size != (width, height):
            raise ValueError(
                f"{path}: the mask is {mask.width}x{mask.height}, its picture {width}x{height}; "
                "they must be of one size"
            )
        values = np.asarray(mask)
    if values.ndim != 2 or values.dtype.kind not in "ui":
        raise ValueError(f"{path}: a mask holds one class number per pixel, this one is {values.dtype} {values.shape}")
    return torch.from_numpy(values.astype(np.int16))


def _largest(label: Tensor, ignore: int) -> int:
    kept = label[label != ignore]
    return int(kept.max()) if len(kept) else 0
