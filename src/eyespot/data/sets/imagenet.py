"""ImageNet-1k (ILSVRC 2012), as ImageNet's own archives or Kaggle's unpack."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import torch

from eyespot.data.labelled.base import ClassificationData, FilePictures, LabelledPictures
from eyespot.data.labelled.layout import Layout
from eyespot.data.labelled.stored import read_mat
from eyespot.data.sets.folders import class_folders, files_by_class, labelled_files
from eyespot.files import read_text, understood

LAYOUT = Layout(
    "ImageNet-1k",
    "FOLDER/train/nXXXXXXXX/*.JPEG and FOLDER/val/nXXXXXXXX/*.JPEG; or FOLDER/val/ILSVRC2012_val_*.JPEG with "
    "LOC_val_solution.csv, or with ILSVRC2012_validation_ground_truth.txt and meta.mat, in FOLDER or "
    "FOLDER/ILSVRC2012_devkit_t12/data; train and val may lie in FOLDER/ILSVRC/Data/CLS-LOC",
    "image-net.org (account needed: ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar, ILSVRC2012_devkit_t12.tar.gz) or "
    "Kaggle's ImageNet Object Localization Challenge",
)
KAGGLE = Path("ILSVRC/Data/CLS-LOC")
DEVKIT = Path("ILSVRC2012_devkit_t12/data")


def open_imagenet(folder: str | Path, limit: int | None = None, names: str = "words") -> ClassificationData:
    """Training (1,281,167) and validation (50,000) pictures; the classes are the sorted WordNet numbers in train.

    Args:
        folder: see `LAYOUT`.
        limit: at most this many pictures per split, evenly spread.
        names: what `classes` holds; see `class_names`.

    Raises:
        LayoutError: a missing folder, label file or picture.
        ValueError: validation pictures of a class without training pictures; class names that do not fit.
    """
    base, folder = _base(folder), Path(folder)
    classes = class_folders(base / "train", LAYOUT)
    train = labelled_files(files_by_class(base / "train", LAYOUT), classes, limit)
    val = labelled_files(_validation_files(base, folder), classes, limit)
    return ClassificationData(train, val, class_names(folder, classes, names) or classes)


def open_imagenet_names(folder: str | Path, limit: int | None = None, names: str = "words") -> ClassificationData:
    """Validation pictures with class names, for zero-shot classification; training pictures are not looked at.

    Args:
        folder: see `LAYOUT`; `train` need not be there. The classes are those of the validation pictures.
        limit: at most this many pictures, evenly spread.
        names: see `class_names`.

    Raises:
        LayoutError: see `open_imagenet`; or there are no class names (WordNet numbers say nothing to a text tower; ask
            for them with names="wnid").
    """
    base, folder = _base(folder), Path(folder)
    files = _validation_files(base, folder)
    classes = sorted({wnid for _, wnid in files})
    found = class_names(folder, classes, names)
    if found is None:
        raise LAYOUT.missing(
            f"class names in {folder}: bring LOC_synset_mapping.txt, words.txt or meta.mat, or pass names=open_clip, "
            "names=FILE or names=wnid"
        )
    none = LabelledPictures(FilePictures([]), torch.empty(0, dtype=torch.int64))
    return ClassificationData(none, labelled_files(files, classes, limit), found)


def open_imagenet_val(folder: str | Path, limit: int | None = None, names: str = "wnid") -> ClassificationData:
    """As `open_imagenet_names`, for models with a class head of their own: timm names its outputs by WordNet number."""
    return open_imagenet_names(folder, limit, names)


def class_names(folder: Path, wnids: Sequence[str], names: str) -> list[str] | None:
    """Names of classes.

    Args:
        folder: where LOC_synset_mapping.txt, words.txt or the devkit are.
        wnids: WordNet numbers, sorted.
        names: "words": the first of the words that ImageNet gives each class, from the first of those files that is
            there (some classes share a name: two are cranes); "wnid": the numbers; "open_clip": the 1,000 hand-made
            names of open_clip, the usual ones for zero-shot; else a text file with one name per line, in the order of
            the sorted numbers.

    Returns:
        A name per class; None if `names` is "words" and there is no file with them.

    Raises:
        ValueError: fewer or more names than classes, or a class without a name.
        ImportError: open_clip is missing.
    """
    if names == "wnid":
        return list(wnids)
    if names == "words":
        words = _words(folder)
        missing = [wnid for wnid in wnids if wnid not in words]
        if words and missing:
            raise ValueError(f"{folder}: no class names for {', '.join(missing[:5])}")
        return [words[wnid].split(",")[0].strip() for wnid in wnids] if words else None
    found = _open_clip_names() if names == "open_clip" else read_text(names).splitlines()
    if len(found) != len(wnids):
        raise ValueError(f"{names} gives {len(found)} class names, there are {len(wnids)} classes")
    return found


def _open_clip_names() -> list[str]:
    try:
        from open_clip import IMAGENET_CLASSNAMES
    except ImportError as error:
        raise ImportError("the names 'open_clip' are open_clip's: pip install 'eyespot[open_clip]'") from error
    return list(IMAGENET_CLASSNAMES)


def _base(folder: str | Path) -> Path:
    """The folder that holds `train` and `val`."""
    return Path(folder) / KAGGLE if (Path(folder) / KAGGLE).is_dir() else Path(folder)


def _places(folder: Path, name: str) -> list[Path]:
    return [folder / name, folder / DEVKIT / name]


def _validation_files(base: Path, folder: Path) -> list[tuple[Path, str]]:
    """Picture and WordNet number of each validation picture."""
    val = LAYOUT.folder(base / "val")
    if any(entry.is_dir() for entry in val.iterdir()):
        return files_by_class(val, LAYOUT)
    pictures = LAYOUT.pictures(val)
    solution = LAYOUT.first(
        [*_places(folder, "LOC_val_solution.csv"), *_places(folder, "ILSVRC2012_validation_ground_truth.txt")]
    )
    known = _kaggle_labels(solution) if solution.suffix == ".csv" else _devkit_labels(solution, folder)
    for picture in pictures:
        if picture.stem not in known:
            raise ValueError(f"{solution} has no label for {picture.name}")
    return [(picture, known[picture.stem]) for picture in pictures]


def _kaggle_labels(path: Path) -> dict[str, str]:
    """Rows are ImageId and the number and box of each object; all objects of a picture are of one class."""
    rows = csv.DictReader(read_text(path).splitlines())
    with understood(path, "its columns are ImageId and PredictionString"):
        return {row["ImageId"]: row["PredictionString"].split()[0] for row in rows}


def _devkit_labels(path: Path, folder: Path) -> dict[str, str]:
    """Line k is the devkit's own class number of picture k; `meta.mat` tells its WordNet number."""
    wnids = {number: wnid for number, wnid, _ in _meta(LAYOUT.first(_places(folder, "meta.mat")))}
    with understood(path, "a class number per line is expected"):
        return {
            f"ILSVRC2012_val_{index:08d}": wnids[int(number)] for index, number in enumerate(read_text(path).split(), 1)
        }


def _words(folder: Path) -> dict[str, str]:
    """WordNet number -> words, from the first file that has them; empty if there is none."""
    for name in ("LOC_synset_mapping.txt", "words.txt"):
        for path in _places(folder, name):
            if path.is_file():
                lines = [line.split(maxsplit=1) for line in read_text(path).splitlines() if line.strip()]
                return {line[0]: line[1] for line in lines if len(line) == 2}
    for path in _places(folder, "meta.mat"):
        if path.is_file():
            return {wnid: words for _, wnid, words in _meta(path)}
    return {}


def _meta(path: Path) -> list[tuple[int, str, str]]:
    """Class number, WordNet number and words of each entry of the devkit's meta.mat."""
    synsets = read_mat(path, "synsets", squeeze_me=True)
    with understood(path):
        return [(int(entry["ILSVRC2012_ID"]), str(entry["WNID"]), str(entry["words"])) for entry in synsets]
