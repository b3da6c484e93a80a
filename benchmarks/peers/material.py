"""The pictures and labels of the quality benchmark: real ones where they are, else the toybox as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pictures import picture_files
from PIL import Image

from eyespot.data.toybox import render
from eyespot.data.toybox.scenes import SHAPES

REAL_PICTURES = (
    "caltech101/train",
    "caltech101/unlabeled",
    "tiny_imagenet/train",
    "camvid/train/images",
    "coco/train2017/images",
    "coco/val2017/images",
)
SPLITS = {"train": (2048, 0), "val": (512, 2**32)}
"""Scenes of each split of the toybox, and the seed of the first."""
TOYBOX_SIZE = 112


@dataclass(frozen=True)
class Material:
    """Where everything is.

    Attributes:
        name: for the record.
        objects: folder of pictures sorted by class, with splits train and val.
        scenes: folder of pictures with masks, with splits train and val.
        pictures: folder of JPEG files to distil on.
    """

    name: str
    objects: Path
    scenes: Path
    pictures: Path


def real(data: Path, work: Path) -> Material:
    """Caltech-101 and CamVid, and beside their training pictures other photographs to distil on.

    Args:
        data: folder of the data sets; see `REAL_PICTURES`.
        work: folder for links to the pictures.

    Raises:
        FileNotFoundError: Caltech-101 or CamVid is not there.
    """
    for needed in ("caltech101", "camvid"):
        if not (data / needed / "train").is_dir():
            raise FileNotFoundError(f"{data / needed} is missing; without --data the toybox takes its place")
    link(REAL_PICTURES, data, work / "pictures")
    return Material("real pictures", data / "caltech101", data / "camvid", work / "pictures")


def toybox(work: Path) -> Material:
    """Rendered scenes: the shape of the main object as class, the name of every pixel's thing as mask."""
    for split, (count, first) in SPLITS.items():
        if not (work / "scenes" / split).is_dir():
            write_scenes(work, split, range(first, first + count))
    link(("objects/train",), work, work / "pictures")
    return Material("toybox", work / "objects", work / "scenes", work / "pictures")


def write_scenes(work: Path, split: str, seeds: Sequence[int]) -> None:
    """Renders scenes into `objects/SPLIT/SHAPE` and `scenes/SPLIT/{images,annotations}`."""
    folders = {kind: work / "scenes" / split / kind for kind in ("annotations", "images")}
    for folder in (*folders.values(), *(work / "objects" / split / shape for shape in SHAPES)):
        folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(seeds), 64):
        part = seeds[start : start + 64]
        scenes = render(part, TOYBOX_SIZE)
        images = (scenes.images * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        for number, seed in enumerate(part):
            picture = Image.fromarray(images[number].numpy())
            shape = SHAPES[int(scenes.shape[number])]
            picture.save(work / "objects" / split / shape / f"{seed}.jpg", quality=95)
            picture.save(folders["images"] / f"{seed}.jpg", quality=95)
            mask = scenes.semantic[number].to(torch.uint8).numpy()
            Image.fromarray(mask).save(folders["annotations"] / f"{seed}.png")


def link(parts: Sequence[str], data: Path, folder: Path) -> None:
    """Links to all JPEG files of some folders, in one."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        for number, file in enumerate(picture_files(data / part)):
            place = folder / f"{part.replace('/', '-')}-{number:05}.jpg"
            if not place.is_symlink():
                place.symlink_to(file.resolve())
