"""Pictures with depth maps in parallel folders: metric depth and surface normals of one's own data."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from eyespot.data.labelled.base import DensePictures, DepthData, NormalsData
from eyespot.data.labelled.dense import open_pairs
from eyespot.data.labelled.geometry import depth_to_normals
from eyespot.data.labelled.label_files import read_depth
from eyespot.data.labelled.layout import Layout
from eyespot.data.labelled.rgbd import read_intrinsics

LAYOUT = Layout(
    "pictures with depth maps",
    "FOLDER/{train,val}/images/NAME.jpg and FOLDER/{train,val}/depth/NAME.png (integers, 0 = no measurement) or "
    "NAME.npy (floats in metres)",
)


def open_depth_folder(
    folder: str | Path, limit: int | None = None, scale: float = 1e-3, high: float = 10.0
) -> DepthData:
    """Reads train/images, train/depth, val/images and val/depth; depth maps carry the picture's name.

    Args:
        folder: the folder that holds `train` and `val`.
        limit: at most this many pictures per split, evenly spread.
        scale: metres per unit of a PNG; 0.001 for millimetres.
        high: the largest depth in metres; what is farther counts as not measured.

    Raises:
        LayoutError: a missing folder or depth map.
    """
    read = partial(read_depth, scale=scale, high=high)
    train, val = _open_both(Path(folder), limit, read, f"depth, scale {scale}, high {high}")
    return DepthData(train, val, high=high)


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
    camera = read_intrinsics(Path(folder) / "camera-intrinsics.txt") if intrinsics is None else _matrix(intrinsics)

    def read(path: Path) -> Tensor:
        return depth_to_normals(read_depth(path, scale, high), camera, window)

    setting = f"normals, scale {scale}, high {high}, {camera.tolist()}, window {window}"
    return NormalsData(*_open_both(Path(folder), limit, read, setting))


def _matrix(intrinsics: tuple[float, ...]) -> Tensor:
    if len(intrinsics) != 4:
        raise ValueError(f"intrinsics are fx,fy,cx,cy, four numbers; got {intrinsics}")
    fx, fy, cx, cy = intrinsics
    return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)


def _open_both(
    folder: Path, limit: int | None, read: Callable[[Path], Tensor], setting: str
) -> tuple[DensePictures, DensePictures]:
    train, val = (_open_split(folder / split, limit, read, setting) for split in ("train", "val"))
    return train, val


def _open_split(split: Path, limit: int | None, read: Callable[[Path], Tensor], setting: str) -> DensePictures:
    pictures = LAYOUT.pictures(split / "images")
    depths = LAYOUT.folder(split / "depth")
    pairs = [(picture, _depth_of(depths, picture)) for picture in pictures]
    return open_pairs(pairs, limit, LAYOUT, read, setting, "depth map")


def _depth_of(depths: Path, picture: Path) -> Path:
    array = depths / f"{picture.stem}.npy"
    return array if array.is_file() else depths / f"{picture.stem}.png"
