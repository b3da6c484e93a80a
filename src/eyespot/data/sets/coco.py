"""COCO: captions for retrieval; masks of 80 kinds of object and key points of persons for several tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from pydantic import TypeAdapter
from torch import Tensor

from eyespot.data.labelled.base import FilePictures, RetrievalData
from eyespot.data.labelled.files import FileData, MapReader
from eyespot.data.labelled.label_files import class_table, read_mask, upright_size
from eyespot.data.labelled.layout import Layout
from eyespot.data.labelled.points import point_maps
from eyespot.data.labelled.samples import Split
from eyespot.data.loading.sampling import spread
from eyespot.dense_tasks import IGNORE, dense_task
from eyespot.files import read_json, understood

CAPTIONS = Layout(
    "COCO captions",
    "FOLDER/annotations/captions_val2017.json and FOLDER/val2017/*.jpg; or FOLDER/val2017/annotations.json "
    '({"images": [{"file": NAME, "captions": [TEXT, ...]}]}) and FOLDER/val2017/images/NAME',
    "cocodataset.org (val2017.zip and annotations_trainval2017.zip, no account needed)",
)
MAPS = Layout(
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


def open_coco(folder: str | Path, limit: int | None = None, split: str = "val2017", captions: int = 5) -> RetrievalData:
    """Pictures with their captions; proportions are kept (see `FilePictures`).

    Published retrieval numbers mostly use the 5,000 test pictures of Karpathy's split of COCO 2014; val2017 has 5,000
    others.

    Args:
        folder: see `CAPTIONS`; also the layout of one's own captioned pictures.
        limit: at most this many pictures, evenly spread.
        split: the part of the names that is "val2017" in `CAPTIONS`.
        captions: at most this many captions of each picture count, the first ones (some have six or seven).

    Raises:
        LayoutError: a missing file, or no captions in it.
    """
    base = Path(folder) / split
    official, own = Path(folder) / "annotations" / f"captions_{split}.json", _annotations(base)
    if CAPTIONS.first((official, own)) == official:
        pictures, texts = base, _official_captions(official)
    else:
        pictures, texts = base / "images", _own_captions(own)
    names = [name for name in texts if texts[name]]
    if not names:
        raise CAPTIONS.missing(f"captions in {official if official.exists() else own}")
    chosen = [names[index] for index in spread(len(names), limit)]
    files = [CAPTIONS.file(pictures / name) for name in chosen]
    return RetrievalData(FilePictures(files, crop=True), [texts[name][:captions] for name in chosen])


def _own_captions(file: Path) -> dict[str, list[str]]:
    content = read_json(file)
    with understood(file):
        return _TEXTS.validate_python({entry["file"]: entry["captions"] for entry in content["images"]})


def _official_captions(file: Path) -> dict[str, list[str]]:
    content = read_json(file)
    with understood(file):
        texts: dict[int, list[str]] = {entry["id"]: [] for entry in content["images"]}
        for entry in content["annotations"]:
            texts[entry["image_id"]].append(entry["caption"])
        return _TEXTS.validate_python({entry["file_name"]: texts[entry["id"]] for entry in content["images"]})


_TEXTS = TypeAdapter(dict[str, list[str]])


def open_coco_maps(name: str, folder: Path, split: Split, limit: int | None = None) -> Coco:
    """COCO's pictures with three tasks.

    "segmentation" has background and 80 classes. "saliency" (ours) marks every pixel of any labelled object: what
    people chose to outline, against everything else. "keypoints" has the 17 of persons, hidden ones included; people
    too small to have labelled key points count as background.

    Args:
        name: what reports call it.
        folder: see `MAPS`.
        split: train2017 or val2017.
        limit: at most this many pictures, evenly spread.

    Raises:
        LayoutError: no annotations, or no pictures in them.
        ValueError: there are not 81 classes.
    """
    base = folder / f"{split}2017"
    file = MAPS.file(_annotations(base))
    content = read_json(file)
    with understood(file):
        names = tuple(map(str, content["classes"]))
        entries = _PICTURES.validate_python(content["images"])
    if len(names) != CLASSES:
        raise ValueError(f"{file}: COCO has {CLASSES} classes with background, not {len(names)}")
    if not entries:
        raise MAPS.missing(f"pictures in {file}")
    chosen = [entries[index] for index in spread(len(entries), limit)]
    tasks = {
        "segmentation": dense_task("classes", CLASSES, names=names),
        "saliency": dense_task("saliency"),
        "keypoints": dense_task("keypoints", len(POINTS), names=POINTS),
    }
    persons = {entry.file: entry.person_keypoints for entry in chosen}
    return Coco(name, folder, tasks, [base / "images" / entry.file for entry in chosen], persons)


@dataclass(frozen=True)
class _Picture:
    """An entry of annotations.json."""

    file: str
    person_keypoints: list[list[float]] = field(default_factory=list)


_PICTURES = TypeAdapter(list[_Picture])


@dataclass(frozen=True)
class Coco(FileData):
    """See `open_coco_maps`.

    Attributes:
        persons: by name of the picture file, 17 x (x, y, visibility) for each person with labelled key points.
    """

    persons: dict[str, list[list[float]]] = field(default_factory=dict)

    layout = MAPS

    def files(self, task: str, picture: Path) -> list[Path]:
        """See `FileData.files`."""
        return [_annotations(picture.parents[1]) if task == "keypoints" else _mask_of(picture)]

    def maps(self, picture: Path) -> dict[str, MapReader]:
        """See `FileData.maps`."""
        classes = cache(lambda: read_mask(_mask_of(picture), TABLE).to(torch.uint8))
        return {
            "segmentation": classes,
            "saliency": lambda: (classes() > 0).to(torch.uint8).masked_fill(classes() == IGNORE, IGNORE),
            "keypoints": lambda: _point_maps(self.persons[picture.name], upright_size(picture)),
        }


def _point_maps(persons: Sequence[Sequence[float]], size: tuple[int, int]) -> Tensor:
    """The maps of all persons' points in a picture of `size` (width, height)."""
    points = [
        (kind, person[3 * kind], person[3 * kind + 1])
        for person in persons
        for kind in range(len(POINTS))
        if person[3 * kind + 2] > 0
    ]
    return point_maps(points, len(POINTS), (size[1], size[0]))


def _annotations(base: Path) -> Path:
    """What is known of the pictures of a split, in the layout that is not the official one."""
    return base / "annotations.json"


def _mask_of(picture: Path) -> Path:
    return picture.parents[1] / "masks" / f"{picture.stem}.png"
