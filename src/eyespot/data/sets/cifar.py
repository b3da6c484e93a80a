"""CIFAR-10 and CIFAR-100, as Python pickles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from eyespot.data.labelled.base import ClassificationData, LabelledPictures, TensorPictures
from eyespot.data.labelled.layout import Layout
from eyespot.data.loading.sampling import spread

WHERE = "www.cs.toronto.edu/~kriz/cifar.html (the archives for Python, no account needed)"
LAYOUT_10 = Layout(
    "CIFAR-10", "FOLDER/cifar-10-batches-py/{data_batch_1 to data_batch_5, test_batch, batches.meta}", WHERE
)
LAYOUT_100 = Layout("CIFAR-100", "FOLDER/cifar-100-python/{train, test, meta}", WHERE)


def open_cifar10(folder: str | Path, limit: int | None = None) -> ClassificationData:
    """CIFAR-10, 50,000 and 10,000 pictures of 32 x 32, held in memory; resized bilinearly, without a crop.

    Args:
        folder: holds cifar-10-batches-py, or is it.
        limit: at most this many pictures per split, evenly spread.

    Raises:
        LayoutError: files are missing or not the original ones (torchvision compares their MD5 before unpickling).
    """
    from torchvision.datasets import CIFAR10

    return _open(CIFAR10, LAYOUT_10, Path(folder), limit)


def open_cifar100(folder: str | Path, limit: int | None = None) -> ClassificationData:
    """CIFAR-100 with its 100 fine classes; see `open_cifar10`."""
    from torchvision.datasets import CIFAR100

    return _open(CIFAR100, LAYOUT_100, Path(folder), limit)


def _open(kind: Any, layout: Layout, folder: Path, limit: int | None) -> ClassificationData:
    root = folder.parent if folder.name == kind.base_folder else folder
    files = layout.folder(root / kind.base_folder)
    for name, _ in [*kind.train_list, *kind.test_list, (kind.meta["filename"], None)]:
        layout.file(files / name)
    try:
        train, val = kind(root, train=True, download=False), kind(root, train=False, download=False)
    except RuntimeError as error:
        raise layout.missing(f"intact files in {files} ({error})") from error
    return ClassificationData(_split(train, limit), _split(val, limit), list(train.classes))


def _split(data: Any, limit: int | None) -> LabelledPictures:
    chosen = spread(len(data.targets), limit)
    images = torch.from_numpy(data.data[chosen]).permute(0, 3, 1, 2).contiguous()
    return LabelledPictures(TensorPictures(images), torch.tensor(data.targets)[chosen])
