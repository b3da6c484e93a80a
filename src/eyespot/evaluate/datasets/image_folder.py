"""Pictures sorted into class folders, with a training and a validation split (the ImageFolder layout)."""

from __future__ import annotations

from pathlib import Path

import torch

from eyespot.evaluate.datasets.base import (
    ClassificationData,
    FilePictures,
    LabelledPictures,
    LayoutError,
    list_pictures,
    spread,
)

EXPECTED = "expected FOLDER/train/CLASS/*.jpg and FOLDER/val/CLASS/*.jpg"


def open_image_folder(folder: str | Path, limit: int | None = None) -> ClassificationData:
    """Reads the layout train/CLASS/PICTURE and val/CLASS/PICTURE; classes are the sorted names in train.

    Args:
        folder: the folder that holds `train` and `val`.
        limit: at most this many pictures per split, spread evenly over the classes.

    Raises:
        LayoutError: a missing split, no class folders, or a class folder without pictures.
        ValueError: `val` has a class that `train` has not.
    """
    folder = Path(folder)
    classes = _class_names(folder / "train")
    unknown = sorted(set(_class_names(folder / "val")) - set(classes))
    if unknown:
        raise ValueError(f"{folder}: no training pictures for {', '.join(unknown)}, which {folder / 'val'} has")
    train, val = (_open_split(folder / split, classes, limit) for split in ("train", "val"))
    return ClassificationData(train, val, classes)


def _class_names(split: Path) -> list[str]:
    if not split.is_dir():
        raise LayoutError(f"no folder {split}; {EXPECTED}")
    names = sorted(entry.name for entry in split.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise LayoutError(f"no class folders in {split}; {EXPECTED}")
    return names


def _open_split(split: Path, classes: list[str], limit: int | None) -> LabelledPictures:
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        if not (split / name).is_dir():
            continue
        found = list_pictures(split / name)
        if not found:
            raise LayoutError(f"the class folder {split / name} holds no pictures; remove it or fill it")
        paths += found
        labels += [label] * len(found)
    chosen = spread(len(paths), limit)
    return LabelledPictures(
        FilePictures([paths[index] for index in chosen], crop=True), torch.tensor([labels[index] for index in chosen])
    )
