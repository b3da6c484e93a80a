"""Pictures sorted into class folders, with a training and a validation split (the ImageFolder layout)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from eyespot.data.labelled.base import ClassificationData, FilePictures, LabelledPictures
from eyespot.data.labelled.layout import Layout, LayoutError, list_pictures
from eyespot.data.loading.sampling import spread

LAYOUT = Layout("pictures in class folders", "FOLDER/train/CLASS/*.jpg and FOLDER/val/CLASS/*.jpg")


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
    classes = class_folders(folder / "train", LAYOUT)
    train = labelled(files_by_class(folder / "train", LAYOUT), classes, limit)
    val = labelled(files_by_class(folder / "val", LAYOUT), classes, limit)
    return ClassificationData(train, val, classes)


def class_folders(split: Path, layout: Layout) -> list[str]:
    """The sorted names of the folders in `split`.

    Raises:
        LayoutError: there are none.
    """
    names = sorted(
        entry.name for entry in layout.folder(split).iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    if not names:
        raise layout.missing(f"class folders in {split}")
    return names


def files_by_class(split: Path, layout: Layout) -> list[tuple[Path, str]]:
    """Picture and class name, sorted, of all class folders in `split`.

    Raises:
        LayoutError: no class folders, or one without pictures.
    """
    files = []
    for name in class_folders(split, layout):
        found = list_pictures(split / name)
        if not found:
            raise LayoutError(f"the class folder {split / name} holds no pictures; remove it or fill it")
        files += [(path, name) for path in found]
    return files


def labelled(files: Sequence[tuple[Path, str]], classes: Sequence[str], limit: int | None) -> LabelledPictures:
    """Picture files with their labels, cropped when they are read.

    Args:
        files: picture and class name.
        classes: all class names; the place there is the label.
        limit: at most this many pictures, evenly spread.

    Raises:
        ValueError: a class that is not among `classes`.
    """
    number = {name: label for label, name in enumerate(classes)}
    unknown = sorted({name for _, name in files} - set(number))
    if unknown:
        raise ValueError(f"{files[0][0].parents[1]} has no training pictures for {', '.join(unknown[:5])}")
    chosen = [files[index] for index in spread(len(files), limit)]
    labels = torch.tensor([number[name] for _, name in chosen], dtype=torch.int64)
    return LabelledPictures(FilePictures([path for path, _ in chosen], crop=True), labels)
