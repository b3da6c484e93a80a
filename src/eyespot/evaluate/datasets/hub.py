"""Image classification sets in Hugging Face's format, saved on disk or by name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eyespot.data.decode import decode_picture
from eyespot.data.fingerprint import fingerprint_of
from eyespot.evaluate.datasets.base import ClassificationData, LabelledPictures, LayoutError, read_fitted, spread
from eyespot.evaluate.datasets.layout import Layout

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
        self.rows = rows.select_columns([column]).cast_column(column, _library().Image(decode=False))
        self.column = column

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, start: int, stop: int, size: tuple[int, int]) -> Tensor:
        """See `Pictures.read`; cropped as pictures for classification are."""
        return read_fitted([_content(file) for file in self.rows[start:stop][self.column]], size, crop=True)

    def original(self, index: int) -> Tensor:
        """See `Pictures.original`; never cut."""
        picture = decode_picture(_content(self.rows[index][self.column]))
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)

    def fingerprint(self) -> str:
        """See `Pictures.fingerprint`: the library's own, which names the data and all that was done to it."""
        return fingerprint_of([self.rows._fingerprint, self.column])


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
        ValueError: no such split or column.
    """
    splits = _load(str(folder), config)
    if val is None:
        val = next((name for name in VALIDATION if name in splits), VALIDATION[0])
    for name in (train, val):
        if name not in splits:
            raise ValueError(f"{folder}: no split {name!r}; there are {', '.join(splits)}")
        for column in (image, label):
            if column not in splits[name].column_names:
                raise ValueError(f"{folder}: no column {column!r}; there are {', '.join(splits[name].column_names)}")
    chosen = [splits[name].select(spread(len(splits[name]), limit)) for name in (train, val)]
    classes = _classes(splits[train], label)
    parts = [LabelledPictures(HubPictures(rows, image), _labels(rows, label, classes)) for rows in chosen]
    return ClassificationData(parts[0], parts[1], [str(name) for name in classes])


def _content(file: Mapping[str, Any]) -> bytes | Path:
    return file["bytes"] or Path(file["path"])


def _library() -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise ImportError("hf: data sets need the library datasets: pip install 'eyespot[datasets]'") from error


def _load(source: str, config: str | None) -> Any:
    library = _library()
    try:
        if (Path(source) / "dataset_dict.json").is_file():
            return library.load_from_disk(source)
        return library.load_dataset(source, config)
    except Exception as error:  # of many kinds: network, cache, scripts, formats
        reason = f"{type(error).__name__}: {error}"
        raise LayoutError(f"{source}: {reason}; expected {LAYOUT.tree}, from {LAYOUT.where}") from error


def _classes(rows: Any, column: str) -> Sequence[Any]:
    """Class names where the column has them, else its different values in order."""
    return getattr(rows.features[column], "names", None) or sorted(set(rows[column]))


def _labels(rows: Any, column: str, classes: Sequence[Any]) -> Tensor:
    values = list(rows[column])
    if getattr(rows.features[column], "names", None) is None:
        number = {value: index for index, value in enumerate(classes)}
        unknown = sorted({value for value in values if value not in number})
        if unknown:
            raise ValueError(f"labels {', '.join(map(str, unknown[:5]))} do not occur among the training pictures")
        values = [number[value] for value in values]
    return torch.tensor(values, dtype=torch.int64)
