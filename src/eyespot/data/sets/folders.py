"""One's own pictures in folders: by class, with masks, with depth maps, with captions, or plain."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from eyespot.data.labelled.base import (
    ClassificationData,
    DensePictures,
    DepthData,
    FileLabels,
    FilePictures,
    LabelledPictures,
    NormalsData,
    RetrievalData,
    SegmentationData,
)
from eyespot.data.labelled.dense import open_pairs
from eyespot.data.labelled.geometry import depth_to_normals
from eyespot.data.labelled.label_files import (
    DEPTHS,
    MASKS,
    REFUSED,
    class_table,
    read_depth,
    read_mask,
    read_matrix,
)
from eyespot.data.labelled.layout import Layout, LayoutError
from eyespot.data.labelled.stored import label_file
from eyespot.data.loading.sampling import spread
from eyespot.data.sets.camvid import VOID
from eyespot.data.sources.folders import FolderSource, picture_paths
from eyespot.dense_tasks import IGNORE
from eyespot.files import read_text

MAPS_LOOKED_AT = 16
"""Depth maps of each split that are looked at to see whether `high` suits them."""
MOST_CLASSES, MOST_UNNAMED = 2**15 - 1, 4096
"""Classes of masks: as many as there can be, and as many as are believed without being told."""
LEAST_KEPT, LITTLE_KEPT = 0.01, 0.9
"""Shares of their measured pixels: below the first is an error, below the second a warning."""

CLASSES = Layout("pictures in class folders", "FOLDER/train/CLASS/*.jpg and FOLDER/val/CLASS/*.jpg")
MASK_LAYOUT = Layout(
    "pictures with masks",
    "FOLDER/{train,val}/images/NAME.jpg and FOLDER/{train,val}/annotations/NAME.png (or .npy, .npz, .tif, .bmp, .pgm)",
)
DEPTH_LAYOUT = Layout(
    "pictures with depth maps",
    "FOLDER/{train,val}/images/NAME.jpg and FOLDER/{train,val}/depth/NAME.png (or .npy, .npz, .tif, "
    ".pgm, .pfm; integers in units of scale=, floats in metres, 0 = no measurement); for normals also "
    "FOLDER/camera-intrinsics.txt (3x3)",
)
CAPTIONS = Layout("pictures with captions", "FOLDER/.../NAME.jpg and, beside each, NAME.txt with one caption per line")


def open_image_folder(folder: str | Path, limit: int | None = None) -> ClassificationData:
    """Reads the layout train/CLASS/PICTURE and val/CLASS/PICTURE; classes are the sorted names in train.

    Args:
        folder: the folder that holds `train` and `val`.
        limit: at most this many pictures per split, spread evenly over the classes.

    Raises:
        LayoutError: a missing split, no class folders, or a class folder without pictures.
        ValueError: `val` has a class that `train` has not.
    """
    folder = Path(folder)
    classes = class_folders(folder / "train", CLASSES)
    train = labelled_files(files_by_class(folder / "train", CLASSES), classes, limit)
    val = labelled_files(files_by_class(folder / "val", CLASSES), classes, limit)
    return ClassificationData(train, val, classes)


def class_folders(split: Path, layout: Layout) -> list[str]:
    """The sorted names of the folders in `split`.

    Raises:
        LayoutError: there are none.
    """
    names = sorted(
        entry.name for entry in layout.folder(split).iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    if not names:
        raise layout.missing(f"class folders in {split}")
    return names


def files_by_class(split: Path, layout: Layout) -> list[tuple[Path, str]]:
    """Picture and class name, sorted, of all class folders in `split`, with all pictures below them.

    Raises:
        LayoutError: no class folders, or one without pictures.
    """
    files = []
    for name in class_folders(split, layout):
        found = [split / name / path for path in sorted(picture_paths(split / name))]
        if not found:
            raise LayoutError(f"the class folder {split / name} holds no pictures; remove it or fill it")
        files += [(path, name) for path in found]
    return files


def labelled_files(files: Sequence[tuple[Path, str]], classes: Sequence[str], limit: int | None) -> LabelledPictures:
    """Picture files with their labels, cropped when they are read.

    Args:
        files: picture and class name.
        classes: all class names; the place there is the label.
        limit: at most this many pictures, evenly spread.

    Raises:
        ValueError: a class that is not among `classes`.
    """
    number = {name: label for label, name in enumerate(classes)}
    unknown = sorted({name for _, name in files} - set(number))
    if unknown:
        raise ValueError(f"{files[0][0].parents[1]} has no training pictures for {', '.join(unknown[:5])}")
    chosen = [files[index] for index in spread(len(files), limit)]
    labels = torch.tensor([number[name] for _, name in chosen], dtype=torch.int64)
    return LabelledPictures(FilePictures([path for path, _ in chosen], crop=True), labels)


def open_mask_folder(
    folder: str | Path,
    limit: int | None = None,
    ignore: int | None = None,
    classes: int | None = None,
    numbers: Sequence[int] = (),
) -> SegmentationData:
    """Reads train/images, train/annotations, val/images and val/annotations; masks carry the picture's name.

    Args:
        folder: the folder that holds `train` and `val`.
        limit: at most this many pictures per split, evenly spread.
        ignore: label of pixels that count for nothing; 255 by default, 11 in a folder called `camvid`.
        classes: how many there are. By default the largest label of both splits plus one, for which every mask is
            looked at once; give it for a large data set.
        numbers: what the masks hold for class 0, 1, ..., if that is something else: 0,255 for masks in black and white.

    Raises:
        LayoutError: a missing folder or mask.
        ValueError: masks that show a single class, `numbers` beside `classes`, a mask of another size than its picture,
            one that is not a single-channel integer picture, or a label that is neither below `classes` nor `ignore`.
            If `classes` or `numbers` are given, the last only when a mask is looked at.
    """
    folder = Path(folder)
    if ignore is None:
        ignore = VOID if folder.resolve().name.lower() == "camvid" else IGNORE
    if numbers and classes is not None:
        raise ValueError("numbers= says how many classes there are: leave classes= out")
    if classes is not None and not 2 <= classes <= MOST_CLASSES:
        raise ValueError(f"classes= is a number from 2 to {MOST_CLASSES:,}, got {classes}")
    if not 0 <= ignore <= 65535 or any(not 0 <= number <= 65535 for number in numbers):
        raise ValueError(f"masks hold numbers from 0 to 65535, got ignore={ignore}, numbers={tuple(numbers)}")
    if len(set(numbers)) < len(numbers) or len(numbers) == 1:
        raise ValueError(f"numbers= names two classes or more, each once, got {tuple(numbers)}")
    table = (
        class_table({number: place for place, number in enumerate(numbers)}, {ignore} - {*numbers}) if numbers else None
    )
    table = table if classes is None else _class_numbers(classes, ignore)
    setting = "" if table is None else f"{numbers or f'{classes} classes'}, {ignore} ignored"
    train, val = (_open_masks(folder / split, limit, table, setting) for split in ("train", "val"))
    if numbers:
        classes = len(numbers)
    if classes is None:
        classes = max(_largest_class(split.labels, ignore) for split in (train, val)) + 1
        if classes > MOST_UNNAMED:
            raise ValueError(
                f"the masks in {folder} hold numbers up to {classes - 1}: do they number objects, not classes? "
                "If there are so many classes, say so: ?classes=N; if they are few, name their numbers: ?numbers=A,B,C"
            )
    if classes < 2:
        raise ValueError(
            f"the masks in {folder} show no class but 0, beside pixels labelled {ignore}, which count for nothing; of "
            "masks that hold 0 and 255, say that both are classes: ?numbers=0,255"
        )
    return SegmentationData(train, val, classes, ignore)


def _open_masks(split: Path, limit: int | None, table: Tensor | None, setting: str) -> DensePictures:
    pictures = MASK_LAYOUT.pictures(split / "images")
    masks = MASK_LAYOUT.folder(split / "annotations")
    pairs = [(picture, label_file(masks, picture.stem, MASKS)) for picture in pictures]
    return open_pairs(pairs, limit, MASK_LAYOUT, partial(read_mask, table=table), setting)


def _class_numbers(classes: int, ignore: int) -> Tensor:
    table = torch.full((max(classes, ignore + 1),), REFUSED, dtype=torch.int16)
    table[:classes] = torch.arange(classes)
    table[ignore] = ignore
    return table


def _largest_class(labels: Iterable[Tensor], ignore: int) -> int:
    return max((int(kept.max()) for label in labels if len(kept := label[label != ignore])), default=0)


def open_depth_folder(
    folder: str | Path, limit: int | None = None, scale: float = 1e-3, high: float = 10.0
) -> DepthData:
    """Reads train/images, train/depth, val/images and val/depth; depth maps carry the picture's name.

    Args:
        folder: the folder that holds `train` and `val`.
        limit: at most this many pictures per split, evenly spread.
        scale: metres per unit of integers; 0.001 for millimetres. Floats are metres.
        high: the largest depth in metres; what is farther counts as not measured. A warning says so where it is much.

    Raises:
        LayoutError: a missing folder or depth map.
        ValueError: hardly any depth of a split is within `high`; `scale` or `high` are no lengths.
    """
    _check_range(scale, high)
    read = partial(read_depth, scale=scale, high=high)
    train, val = _open_depths(Path(folder), limit, read, f"depth, scale {scale}, high {high}")
    for split, labels in (("train", train.labels), ("val", val.labels)):
        assert isinstance(labels, FileLabels)
        _check_depths(Path(folder) / split, labels.paths, scale, high)
    return DepthData(train, val, high=high)


def _check_range(scale: float, high: float) -> None:
    for name, value in (("scale", scale), ("high", high)):
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name}= is a length in metres above 0, got {value}")


def _check_depths(split: Path, paths: Sequence[Path], scale: float, high: float) -> None:
    """Looks at some maps and says how much of them is dropped for being farther than `high`.

    Raises:
        ValueError: hardly anything is left, or was measured at all.
    """
    measured = kept = 0
    for index in spread(len(paths), MAPS_LOOKED_AT):
        depth = read_depth(paths[index], scale)
        measured += int((depth > 0).sum())
        kept += int(((depth > 0) & (depth <= high)).sum())
    if kept < LEAST_KEPT * measured or not measured:
        raise ValueError(
            f"{kept / max(measured, 1):.1%} of the depths in {split} are up to {high} m (of {measured} measured "
            f"pixels): nothing to learn or to measure. A larger range is high=METRES, metres per unit of integers "
            f"are scale= ({scale} now)"
        )
    if kept < LITTLE_KEPT * measured:
        warnings.warn(
            f"{1 - kept / measured:.0%} of the depths in {split} are above {high} m and count as not measured; for all "
            "of them set high=METRES",
            stacklevel=4,
        )


def open_normals_folder(
    folder: str | Path,
    limit: int | None = None,
    scale: float = 1e-3,
    high: float = 10.0,
    intrinsics: tuple[float, float, float, float] | None = None,
    window: int = 5,
) -> NormalsData:
    """Surface normals of the depth maps that `open_depth_folder` reads.

    Args:
        folder: see there.
        limit: see there.
        scale: see there.
        high: see there.
        intrinsics: focal lengths and principal point fx,fy,cx,cy of the camera, in pixels of the depth maps. By default
            the 3x3 matrix in FOLDER/camera-intrinsics.txt.
        window: see `depth_to_normals`.

    Raises:
        LayoutError: a missing folder, depth map or matrix.
        ValueError: `intrinsics` are not four numbers.
    """
    _check_range(scale, high)
    camera = _camera(Path(folder), intrinsics)

    def read(path: Path) -> Tensor:
        return depth_to_normals(read_depth(path, scale, high), camera, window)

    setting = f"normals, scale {scale}, high {high}, {camera.tolist()}, window {window}"
    return NormalsData(*_open_depths(Path(folder), limit, read, setting))


def _camera(folder: Path, intrinsics: tuple[float, ...] | None) -> Tensor:
    """The pinhole matrix, [3, 3] float64."""
    if intrinsics is None:
        return read_matrix(DEPTH_LAYOUT.file(folder / "camera-intrinsics.txt"), 3)
    if len(intrinsics) != 4:
        raise ValueError(f"intrinsics are fx,fy,cx,cy, four numbers; got {intrinsics}")
    fx, fy, cx, cy = intrinsics
    return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)


def _open_depths(
    folder: Path, limit: int | None, read: Callable[[Path], Tensor], setting: str
) -> tuple[DensePictures, DensePictures]:
    train, val = (_open_depth_split(folder / split, limit, read, setting) for split in ("train", "val"))
    return train, val


def _open_depth_split(split: Path, limit: int | None, read: Callable[[Path], Tensor], setting: str) -> DensePictures:
    pictures = DEPTH_LAYOUT.pictures(split / "images")
    depths = DEPTH_LAYOUT.folder(split / "depth")
    pairs = [(picture, label_file(depths, picture.stem, DEPTHS)) for picture in pictures]
    return open_pairs(pairs, limit, DEPTH_LAYOUT, read, setting, "depth map")


def open_picture_folder(folder: str | Path, limit: int | None = None) -> FilePictures:
    """All pictures below a folder, whatever its layout, proportions kept (see `FilePictures`).

    Args:
        folder: the folder.
        limit: at most this many pictures, spread evenly.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no pictures in it.
    """
    source = FolderSource(folder)
    return FilePictures([Path(source.picture_name(index)) for index in spread(len(source), limit)], crop=True)


def open_caption_folder(folder: str | Path, limit: int | None = None) -> RetrievalData:
    """Pictures anywhere below a folder, each with a text file of the same name beside it, one caption per line.

    Args:
        folder: the folder.
        limit: at most this many pictures, spread evenly.

    Raises:
        FileNotFoundError: no such folder.
        LayoutError: a picture without captions.
        ValueError: no pictures in it.
    """
    pictures = open_picture_folder(folder, limit)
    captions = []
    for path in pictures.paths:
        file = path.with_suffix(".txt")
        lines = read_text(CAPTIONS.file(file)).splitlines()
        captions.append([line.strip() for line in lines if line.strip()])
        if not captions[-1]:
            raise CAPTIONS.missing(f"caption in {file}")
    return RetrievalData(pictures, captions)
