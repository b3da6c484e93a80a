"""Helpers for tests that write tiny replicas of data sets."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image, ImageFile

from eyespot.data.labelled import label_files
from eyespot.data.sets import pascal


def save(path: Path, array: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path)
    return path


def photo(path: Path, value: int = 90, height: int = 6, width: int = 8) -> Path:
    return save(path, np.full((height, width, 3), value, dtype=np.uint8))


def mask(path: Path, rows: object) -> Path:
    return save(path, np.asarray(rows, dtype=np.uint8))


def depth(path: Path, millimetres: object) -> Path:
    return save(path, np.asarray(millimetres, dtype=np.uint16))


def text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


@contextmanager
def nothing_decoded() -> Iterator[None]:
    """Fails if a picture file is decoded; its header may be read."""

    def refuse(self: object) -> None:
        raise AssertionError("a picture was decoded")

    with patch.object(ImageFile.ImageFile, "load", refuse):
        yield


@contextmanager
def counted_decodes() -> Iterator[Counter[str]]:
    """Counts by name how often label files are decoded: by `read_stored`, and .mat files."""
    counts: Counter[str] = Counter()

    def counting(read: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(file: Path, *args: Any, **kwargs: Any) -> Any:
            counts[Path(file).name] += 1
            return read(file, *args, **kwargs)

        return wrapped

    with (
        patch.object(label_files, "read_stored", counting(label_files.read_stored)),
        patch.object(pascal, "read_mat", counting(pascal.read_mat)),
    ):
        yield counts


CAT = "000001-2008_1-2008_2:cat"
BUS = "000002-2009_1-2009_2:bus"
BACK = "000003-2008_2-2008_1:cat"


def write_spair(folder: Path) -> Path:
    """SPair-71k with three pairs of four pictures."""
    sizes = {"2008_1": (40, 30), "2008_2": (60, 50), "2009_1": (32, 32), "2009_2": (32, 64)}
    for name, (width, height) in sizes.items():
        photo(folder / "JPEGImages" / ("cat" if "2008" in name else "bus") / f"{name}.jpg", 90, height, width)

    def annotate(name: str, points: list[list[int]], target_points: list[list[int]], box: list[int]) -> None:
        source, target = name[7:].split(":")[0].split("-")
        content = {
            "filename": name,
            "src_imname": f"{source}.jpg",
            "trg_imname": f"{target}.jpg",
            "src_imsize": [*sizes[source], 3],
            "trg_imsize": [*sizes[target], 3],
            "src_bndbox": [1, 1, 5, 5],
            "trg_bndbox": box,
            "category": name.split(":")[1],
            "src_kps": points,
            "trg_kps": target_points,
            "kps_ids": [str(index) for index in range(len(points))],
        }
        text(folder / "PairAnnotation" / "test" / f"{name}.json", json.dumps(content))

    annotate(CAT, [[10, 20], [0, 29]], [[30, 40], [59, 0]], [5, 10, 25, 45])
    annotate(BUS, [[1, 2]], [[3, 4]], [2, 3, 30, 20])
    annotate(BACK, [[7, 7]], [[8, 8]], [0, 0, 39, 10])
    text(folder / "Layout" / "large" / "test.txt", CAT, BUS, BACK)
    text(folder / "Layout" / "small" / "test.txt", BUS)
    return folder


def write_hub(folder: Path) -> Path:
    """A data set as `save_to_disk` writes it; red means class 1. Skips the test where the library is missing."""
    datasets = pytest.importorskip("datasets")

    def rows(labels: list[int]) -> dict[str, list[object]]:
        colours = [(250, 10, 10) if label else (10, 10, 250) for label in labels]
        pictures = [Image.new("RGB", (20, 16), colour) for colour in colours]
        return {"image": pictures, "label": labels, "word": [("blue", "red")[label] for label in labels]}

    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["sea", "rose"]), word=datasets.Value("string")
    )
    splits = {"train": [0, 1, 0, 1, 1, 0], "test": [1, 0, 1]}
    made = {name: datasets.Dataset.from_dict(rows(labels), features) for name, labels in splits.items()}
    datasets.DatasetDict(made).save_to_disk(str(folder))
    return folder
