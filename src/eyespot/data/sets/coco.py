"""COCO captions, image-text retrieval."""

from __future__ import annotations

import json
from pathlib import Path

from eyespot.data.labelled.base import FilePictures, RetrievalData
from eyespot.data.labelled.layout import Layout
from eyespot.data.loading.sampling import spread

LAYOUT = Layout(
    "COCO captions",
    "FOLDER/annotations/captions_val2017.json and FOLDER/val2017/*.jpg; or FOLDER/val2017/annotations.json "
    '({"images": [{"file": NAME, "captions": [TEXT, ...]}]}) and FOLDER/val2017/images/NAME',
    "cocodataset.org (val2017.zip and annotations_trainval2017.zip, no account needed)",
)


def open_coco(folder: str | Path, limit: int | None = None, split: str = "val2017", captions: int = 5) -> RetrievalData:
    """Pictures with their captions; proportions are kept (see `FilePictures`).

    Published retrieval numbers mostly use the 5,000 test pictures of Karpathy's split of COCO 2014; val2017 has 5,000
    others.

    Args:
        folder: see `LAYOUT`; also the layout of one's own captioned pictures.
        limit: at most this many pictures, evenly spread.
        split: the part of the names that is "val2017" in `LAYOUT`.
        captions: at most this many captions of each picture count, the first ones (some have six or seven).

    Raises:
        LayoutError: a missing file, or no captions in it.
    """
    folder = Path(folder)
    official, own = folder / "annotations" / f"captions_{split}.json", folder / split / "annotations.json"
    if LAYOUT.first((official, own)) == official:
        base, texts = folder / split, _official(official)
    else:
        base, texts = folder / split / "images", _own(own)
    names = [name for name in texts if texts[name]]
    if not names:
        raise LAYOUT.missing(f"captions in {official if official.exists() else own}")
    chosen = [names[index] for index in spread(len(names), limit)]
    pictures = [LAYOUT.file(base / name) for name in chosen]
    return RetrievalData(FilePictures(pictures, crop=True), [texts[name][:captions] for name in chosen])


def _official(path: Path) -> dict[str, list[str]]:
    content = json.loads(path.read_text())
    texts: dict[int, list[str]] = {entry["id"]: [] for entry in content["images"]}
    for entry in content["annotations"]:
        texts[entry["image_id"]].append(entry["caption"])
    return {entry["file_name"]: texts[entry["id"]] for entry in content["images"]}


def _own(path: Path) -> dict[str, list[str]]:
    return {entry["file"]: entry["captions"] for entry in json.loads(path.read_text())["images"]}
