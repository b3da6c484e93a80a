"""COCO with masks of 80 kinds of object and the key points of persons."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eyespot.data.labelled.files import FileData
from eyespot.data.labelled.label_files import class_table, read_mask, upright_size
from eyespot.data.labelled.layout import Layout
from eyespot.data.labelled.points import point_maps
from eyespot.data.labelled.samples import Split
from eyespot.data.loading.sampling import spread
from eyespot.dense_tasks import IGNORE, dense_task

LAYOUT = Layout(
    "COCO with masks",
    "FOLDER/{train2017,val2017}/images/NAME.jpg, FOLDER/{train2017,val2017}/masks/NAME.png (0 background, 1 to 80 the "
    'categories in their order, 255 = no label) and FOLDER/{train2017,val2017}/annotations.json ({"classes": '
    '["background", ...], "images": [{"file": NAME, "person_keypoints": [[x, y, visibility, ...], ...]}]})',
    "cocodataset.org; the masks are drawn from its instances",
)
CLASSES = 81
POINTS = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)
TABLE = class_table({number: number for number in range(CLASSES)}, ignored=[IGNORE])


@dataclass(frozen=True)
class Coco(FileData):
    """See `open_coco`.

    Attributes:
        persons: by name of the picture file, 17 x (x, y, visibility) for each person with labelled key points.
    """

    persons: dict[str, list[list[float]]] = field(default_factory=dict)

    layout = LAYOUT

    def files(self, task: str, picture: Path) -> list[Path]:
        """See `FileData.files`."""
        base = picture.parents[1]
        return [base / "annotations.json"] if task == "keypoints" else [base / "masks" / f"{picture.stem}.png"]

    def label(self, task: str, picture: Path) -> Tensor:
        """See `FileData.label`."""
        if task == "keypoints":
            return self._points(picture)
        classes = read_mask(self.files(task, picture)[0], TABLE).to(torch.uint8)
        if task == "segmentation":
            return classes
        return (classes > 0).to(torch.uint8).masked_fill(classes == IGNORE, IGNORE)

    def _points(self, picture: Path) -> Tensor:
        width, height = upright_size(picture)
        points = [
            (kind, person[3 * kind], person[3 * kind + 1])
            for person in self.persons[picture.name]
            for kind in range(len(POINTS))
            if person[3 * kind + 2] > 0
        ]
        return point_maps(points, len(POINTS), (height, width))


def open_coco(name: str, folder: Path, split: Split, limit: int | None = None) -> Coco:
    """COCO's pictures with three tasks.

    "segmentation" has background and 80 classes. "saliency" (ours) marks every pixel of any labelled object: what
    people chose to outline, against everything else. "keypoints" has the 17 of persons, hidden ones included; people
    too small to have labelled key points count as background.

    Args:
        name: what reports call it.
        folder: see `LAYOUT`.
        split: train2017 or val2017.
        limit: at most this many pictures, evenly spread.

    Raises:
        LayoutError: no annotations, or no pictures in them.
        ValueError: there are not 81 classes.
    """
    base = folder / f"{split}2017"
    content = json.loads(LAYOUT.file(base / "annotations.json").read_text(encoding="utf-8"))
    names = tuple(content["classes"])
    if len(names) != CLASSES:
        raise ValueError(f"{base / 'annotations.json'}: COCO has {CLASSES} classes with background, not {len(names)}")
    entries: list[dict[str, Any]] = content["images"]
    if not entries:
        raise LAYOUT.missing(f"pictures in {base / 'annotations.json'}")
    chosen = [entries[index] for index in spread(len(entries), limit)]
    tasks = {
        "segmentation": dense_task("classes", CLASSES, names=names),
        "saliency": dense_task("saliency"),
        "keypoints": dense_task("keypoints", len(POINTS), names=POINTS),
    }
    persons = {entry["file"]: entry.get("person_keypoints", []) for entry in chosen}
    return Coco(name, folder, tasks, [base / "images" / entry["file"] for entry in chosen], persons)
