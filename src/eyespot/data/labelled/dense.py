"""Pictures with a label file each; how masks and depth maps are read is in `eyespot.data.labelled.label_files`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from eyespot.data.labelled.base import DensePictures, FileLabels, FilePictures
from eyespot.data.labelled.label_files import check_size
from eyespot.data.labelled.layout import Layout
from eyespot.data.loading.sampling import spread


def open_pairs(
    pairs: Sequence[tuple[Path, Path]],
    limit: int | None,
    layout: Layout,
    read: Callable[[Path], Tensor],
    setting: str = "",
    kind: str = "mask",
) -> DensePictures:
    """Pictures with label maps, neither decoded before it is asked for.

    Args:
        pairs: picture and label files.
        limit: at most this many, evenly spread.
        layout: what errors name.
        read: label file -> map.
        setting: what `read` depends on beside the file; see `FileLabels`.
        kind: what errors call a label map.

    Returns:
        Looking at a label raises a ValueError if it is not of its picture's size.

    Raises:
        LayoutError: a picture or a label file is missing.
    """
    chosen = [pairs[index] for index in spread(len(pairs), limit)]
    for picture, label in chosen:
        layout.file(picture)
        if not label.is_file():
            raise layout.missing(f"{kind} {label} for {picture.name}")
    pictures, labels = [picture for picture, _ in chosen], [label for _, label in chosen]
    partners = dict(zip(labels, pictures, strict=True))
    return DensePictures(FilePictures(pictures), FileLabels(labels, partial(_read_checked, read, partners), setting))


def _read_checked(read: Callable[[Path], Tensor], partners: Mapping[Path, Path], label: Path) -> Tensor:
    values = read(label)
    check_size(label, (values.shape[-1], values.shape[-2]), partners[label])
    return values
