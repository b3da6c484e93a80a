"""SPair-71k, semantic correspondence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eyespot.data.labelled.base import FilePictures, MatchingData, PointPair
from eyespot.data.labelled.layout import Layout
from eyespot.data.loading.sampling import spread
from eyespot.files import read_json, read_text, understood

LAYOUT = Layout(
    "SPair-71k",
    "FOLDER/JPEGImages/CATEGORY/NAME.jpg, FOLDER/Layout/{large,small}/{trn,val,test}.txt and "
    "FOLDER/PairAnnotation/{trn,val,test}/PAIR.json (FOLDER is SPair-71k)",
    "cvlab.postech.ac.kr/research/SPair-71k (SPair-71k.tar.gz, no account needed)",
)
SIZES, SPLITS, THRESHOLDS = ("large", "small"), ("test", "val", "trn"), ("box", "img")


def open_spair(
    folder: str | Path, limit: int | None = None, split: str = "test", size: str = "large", threshold: str = "box"
) -> MatchingData:
    """The pairs of one split, 12,234 in the large test split; no picture is decoded, sizes come from the annotations.

    Args:
        folder: SPair-71k.
        limit: at most this many pairs, evenly spread over the categories.
        split: "test", "val" or "trn".
        size: "large" or "small", the list of pairs.
        threshold: errors are measured against the longer side of the target object's box ("box", the usual one) or of
            the target picture ("img").

    Returns:
        Key points are taken as numbers of pixels from 0, so 0.5 leads to the pixel's centre (ours; the annotation does
        not say). `group` is the category.

    Raises:
        LayoutError: a missing list, annotation or picture.
        ValueError: another split, size or threshold.
    """
    for name, value, known in (("split", split, SPLITS), ("size", size, SIZES), ("threshold", threshold, THRESHOLDS)):
        if value not in known:
            raise ValueError(f"SPair-71k's {name} is {', '.join(known)}; got {value!r}")
    folder = Path(folder)
    names = read_text(LAYOUT.file(folder / "Layout" / size / f"{split}.txt")).split()
    annotations = LAYOUT.folder(folder / "PairAnnotation" / split)
    chosen = [_read(annotations, names[index], folder / "JPEGImages", threshold) for index in spread(len(names), limit)]
    pictures = sorted({LAYOUT.file(picture) for _, *ends in chosen for picture in ends})
    number = {picture: index for index, picture in enumerate(pictures)}
    pairs = [replace(pair, source=number[source], target=number[target]) for pair, source, target in chosen]
    shared = FilePictures(pictures)
    return MatchingData(shared, shared, pairs)


def _read(annotations: Path, name: str, pictures: Path, threshold: str) -> tuple[PointPair, Path, Path]:
    """A pair of pictures, still without numbers, and the two."""
    path = annotations / f"{name}.json"
    if not path.is_file():
        path = annotations / f"{name.replace(':', '_')}.json"  # what some unpackers make of a colon
    pair: dict[str, Any] = read_json(LAYOUT.file(path))
    with understood(path):
        _check_points(pair, path)
        source, target = (pictures / pair["category"] / pair[f"{end}_imname"] for end in ("src", "trg"))
        return _point_pair(pair, threshold), source, target


def _check_points(pair: dict[str, Any], path: Path) -> None:
    if len(pair["src_kps"]) != len(pair["trg_kps"]):
        raise ValueError(
            f"{path}: {len(pair['src_kps'])} key points in the one picture, {len(pair['trg_kps'])} in the other"
        )


def _point_pair(pair: dict[str, Any], threshold: str) -> PointPair:
    (source_width, source_height), (width, height) = pair["src_imsize"][:2], pair["trg_imsize"][:2]
    left, top, right, bottom = pair["trg_bndbox"]
    return PointPair(
        0,
        0,
        _points(pair["src_kps"]),
        _points(pair["trg_kps"]),
        (source_height, source_width),
        (height, width),
        reach=float(max(right - left, bottom - top) if threshold == "box" else max(height, width)),
        group=pair["category"],
    )


def _points(listed: list[list[float]]) -> Tensor:
    return torch.tensor(listed, dtype=torch.float32).reshape(-1, 2) + 0.5
