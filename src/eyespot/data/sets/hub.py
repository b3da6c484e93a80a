"""Image classification sets in Hugging Face's format, saved on disk or by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eyespot.data.labelled.base import ClassificationData, LabelledPictures, read_fitted
from eyespot.data.labelled.layout import Layout, LayoutError
from eyespot.data.loading.sampling import spread
from eyespot.data.sources.decode import decode_picture
from eyespot.data.sources.fingerprint import fingerprint_of
from eyespot.data.sources.hub import (
    class_values,
    content_of,
    label_numbers,
    load_splits,
    present,
    rows_contents,
    undecoded,
)

LAYOUT = Layout(
    "Hugging Face datasets",
    "a folder written by `save_to_disk` (it holds dataset_dict.json), or the name of a data set that the library "
    "`datasets` can load, with a column of pictures and one of labels in each split",
    "huggingface.co/datasets, e.g. hf:uoft-cs/cifar10, or from what is in the library's local cache",
)
VALIDATION = ("validation", "val", "valid", "test")


class HubPictures:
    """Pictures of a column of a data set, decoded when they are read, by our own decoder.

    Args:
        rows: a `datasets.Dataset`.
        column: holds the pictures.
    """

    def __init__(self, rows: Any, column: str) -> None:
        self.rows = undecoded(rows, column)
        self.column = column

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, start: int, stop: int, size: tuple[int, int]) -> Tensor:
        """See `Pictures.read`; cropped as pictures for classification are."""
        return read_fitted([content_of(file) for file in self.rows[start:stop][self.column]], size, crop=True)

    def original(self, index: int) -> Tensor:
        """See `Pictures.original`; never cut."""
        picture = decode_picture(content_of(self.rows[index][self.column]))
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)

    def fingerprint(self) -> str:
        """See `Pictures.fingerprint`: the library's own, which names the data and all that was done to it."""
        return fingerprint_of([self.rows._fingerprint, self.column])

    def contents(self) -> np.ndarray:
        """See `HasContents.contents`."""
        return rows_contents(self.rows, self.column)


def open_hub(
    folder: str | Path,
    limit: int | None = None,
    image: str = "image",
    label: str = "label",
    train: str = "train",
    val: str | None = None,
    config: str | None = None,
) -> ClassificationData:
    """A data set for image classification.

    Args:
        folder: a folder written by `save_to_disk`, or a name (or folder) for `load_dataset`, which uses its local cache
            or downloads.
        limit: at most this many pictures per split, evenly spread.
        image: the column of pictures.
        label: the column of labels: class numbers, or any text or numbers, which are sorted.
        train: the split to train on.
        val: the split to measure on; by default the first of validation, val, valid, test that there is.
        config: which configuration, where a name has several.

    Raises:
        ImportError: `datasets` is missing.
        LayoutError: the data set cannot be loaded.
        ValueError: no such split or column, or a split without labels.
    """
    splits = _load(str(folder), config)
    if val is None:
        val = next((name for name in VALIDATION if name in splits), VALIDATION[0])
    for name in (train, val):
        present(str(folder), "split", name, list(splits))
        for column in (image, label):
            present(str(folder), "column", column, splits[name].column_names)
    classes = class_values(splits[train], label)
    parts = [_open_split(str(folder), name, splits[name], image, label, classes, limit) for name in (train, val)]
    return ClassificationData(parts[0], parts[1], [str(name) for name in classes])


def _open_split(
    folder: str, split: str, rows: Any, image: str, label: str, classes: Sequence[Any], limit: int | None
) -> LabelledPictures:
    """The rows of a split that have a label."""
    numbers = label_numbers(rows, label, classes)
    labelled = np.flatnonzero(numbers >= 0)
    if not len(labelled):
        raise ValueError(f"the split {split} of {folder} has no labels (they are hidden); name another: ?val=SPLIT")
    chosen = labelled[spread(len(labelled), limit)]
    return LabelledPictures(HubPictures(rows.select(chosen), image), torch.from_numpy(numbers[chosen]))


def _load(source: str, config: str | None) -> Mapping[str, Any]:
    try:
        return load_splits(source, config)
    except FileNotFoundError as error:
        raise LayoutError(f"{error}; expected {LAYOUT.tree}, from {LAYOUT.where}") from error
