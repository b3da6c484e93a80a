"""Data sets in folders, with one file of them damaged or gone: lists, annotations, matrices, pictures, maps, .mat.

A sample that is read has the labels that were written; the others are refused by name.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import torch
from fuzzing import Case, Skipped, Wrong, damage
from torch import Tensor

from eyespot.data.labelled.base import ClassificationData, MatchingData, RetrievalData
from eyespot.data.sets import open_multitask
from eyespot.data.sets.coco import open_coco
from eyespot.data.sets.folders import open_caption_folder
from eyespot.data.sets.imagenet import open_imagenet, open_imagenet_names
from eyespot.data.sets.spair import open_spair
from multitask_replicas import write_camvid, write_coco, write_kitchen, write_nyud, write_pascal
from replicas import photo, text, write_spair

Labels = list[Any]


def write_imagenet(folder: Path) -> Path:
    """Two classes, validation pictures in one folder, with Kaggle's labels."""
    for number, wnid in enumerate(("n01", "n02")):
        photo(folder / "train" / wnid / "a.JPEG", 50 * number)
        photo(folder / "val" / f"ILSVRC2012_val_{number + 1:08d}.JPEG", 50 * number)
    text(folder / "LOC_synset_mapping.txt", "n01 tench, fish", "n02 goldfish")
    rows = [f"ILSVRC2012_val_{number + 1:08d},n0{number + 1} 1 2 3 4" for number in range(2)]
    text(folder / "LOC_val_solution.csv", "ImageId,PredictionString", *rows)
    return folder


def write_devkit(folder: Path) -> Path:
    """The same with the labels of ImageNet's own devkit."""
    write_imagenet(folder)
    (folder / "LOC_val_solution.csv").unlink()
    (folder / "LOC_synset_mapping.txt").unlink()
    text(folder / "ILSVRC2012_validation_ground_truth.txt", "2", "1")
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")]
    synsets = np.array([(1, "n02", "goldfish"), (2, "n01", "tench, fish")], dtype=kinds)
    scipy.io.savemat(folder / "meta.mat", {"synsets": synsets})
    return folder


def write_captions(folder: Path) -> Path:
    for name in "ab":
        photo(folder / f"{name}.jpg")
        text(folder / f"{name}.txt", f"a picture of {name}", "ä")
    return folder


def write_coco_captions(folder: Path) -> Path:
    """Two pictures in the official form."""
    for name in "ab":
        photo(folder / "val2017" / f"{name}.jpg")
    images = [{"id": number, "file_name": f"{name}.jpg"} for number, name in enumerate("ab")]
    captions = [{"image_id": number, "caption": f"words {number}"} for number in (0, 1, 0)]
    content = {"images": images, "annotations": captions}
    text(folder / "annotations" / "captions_val2017.json", json.dumps(content))
    return folder


def _multitask(name: str) -> Callable[[Path], Labels]:
    def read(folder: Path) -> Labels:
        data = open_multitask(f"{name}:{folder}", "train")
        return [tensor for index in range(len(data)) for tensor in data.read(index).maps.values()]

    return read


def _classes(data: ClassificationData) -> Labels:
    return [data.train.labels, data.val.labels, data.classes]


def _captions(data: RetrievalData) -> Labels:
    return data.captions


def _pairs(data: MatchingData) -> Labels:
    return [value for pair in data.pairs for value in (pair.source_points, pair.target_points, pair.reach, pair.group)]


SETS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Labels]]] = {
    "camvid": (write_camvid, _multitask("camvid")),
    "coco": (write_coco, _multitask("coco")),
    "kitchen": (write_kitchen, _multitask("kitchen")),
    "nyud": (write_nyud, _multitask("nyud")),
    "pascal_context": (write_pascal, _multitask("pascal_context")),
    "imagenet": (write_imagenet, lambda folder: _classes(open_imagenet(folder))),
    "imagenet devkit": (write_devkit, lambda folder: _classes(open_imagenet_names(folder))),
    "spair": (write_spair, lambda folder: _pairs(open_spair(folder))),
    "captions": (write_captions, lambda folder: _captions(open_caption_folder(folder))),
    "coco captions": (write_coco_captions, lambda folder: _captions(open_coco(folder))),
}


@cache
def _written(name: str) -> tuple[tempfile.TemporaryDirectory[str], Labels]:
    """A sound set of a name (gone when the process ends), and its labels."""
    write, read = SETS[name]
    folder = tempfile.TemporaryDirectory(prefix="fuzz-sets-")
    write(Path(folder.name))
    return folder, read(Path(folder.name))


def draw(rng: random.Random, folder: Path) -> Case:
    name = rng.choice(list(SETS))
    sound, wanted = _written(name)
    place = folder / "set"
    shutil.copytree(sound.name, place)
    file = rng.choice(sorted(path for path in place.rglob("*") if path.is_file()))
    kind = rng.choice(("sound", "gone", "harm", "harm", "harm", "harm"))
    if kind == "gone":
        file.unlink()
    elif kind == "harm":
        kind = damage(file, rng)

    def judge(found: Labels, warned: list[str]) -> None:
        if len(found) != len(wanted):
            raise Skipped if kind != "sound" else Wrong("other labels")
        if kind == "sound" and not all(_same(one, other) for one, other in zip(found, wanted, strict=True)):
            raise Wrong("other labels")
        for one, other in zip(found, wanted, strict=True):
            if isinstance(other, Tensor) and one.dtype != other.dtype:
                raise Wrong(f"labels of {one.dtype}")
            if isinstance(other, Tensor) and one.is_floating_point() and not bool(one.isfinite().all()):
                raise Wrong("labels that are no numbers")

    words = f"{name} {file.relative_to(place)} {kind}"
    return Case(words, lambda: SETS[name][1](place), [str(place)], judge, may_refuse=kind != "sound")


def _same(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(other, Tensor) else one == other
