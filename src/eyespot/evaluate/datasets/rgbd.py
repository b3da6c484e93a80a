"""RGB-D frames with camera poses, in the layout of 7-Scenes: metric depth, surface normals, geometric matching."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eyespot.data.randomness import torch_generator
from eyespot.evaluate.datasets.base import (
    DensePictures,
    DepthData,
    FileLabels,
    FilePictures,
    MatchingData,
    NormalsData,
    PointPair,
    list_pictures,
    spread,
)
from eyespot.evaluate.datasets.dense import check_size, read_depth
from eyespot.evaluate.datasets.layout import Layout
from eyespot.evaluate.geometry import covisible_points, depth_to_normals

LAYOUT = Layout(
    "RGB-D frames",
    "FOLDER/camera-intrinsics.txt (3x3) and, for each frame, FOLDER/NAME.color.jpg, NAME.depth.png (16 bit, "
    "millimetres, 0 or 65535 = no measurement) and NAME.pose.txt (4x4, camera to world, metres)",
    "7-Scenes on Microsoft Research's site, one sequence per folder, or your own camera",
)
MISSING = 65535


@dataclass(frozen=True)
class RgbdFrames:
    """Frames in order of their names.

    Attributes:
        colours: the colour files.
        depth: N maps [H, W], float32 metres along the optical axis, 0 = no measurement.
        poses: [N, 4, 4] float64, camera to world.
        intrinsics: [3, 3] float64, for pixels of the depth map.
    """

    colours: list[Path]
    depth: FileLabels
    poses: Tensor
    intrinsics: Tensor


def read_rgbd(folder: str | Path) -> RgbdFrames:
    """Reads a folder of RGB-D frames.

    Raises:
        LayoutError: files are missing.
        ValueError: sizes disagree, or a matrix file has another shape.
    """
    folder = Path(folder)
    colours = [path for path in list_pictures(folder) if path.stem.endswith(".color")] if folder.is_dir() else []
    if not colours:
        raise LAYOUT.missing(f"*.color.jpg in {folder}")
    depths = [LAYOUT.file(_beside(path, "depth.png")) for path in colours]
    for colour, depth in zip(colours, depths, strict=True):
        with Image.open(depth) as picture:
            check_size(depth, picture.size, colour)
    poses = torch.stack([_read_matrix(_beside(path, "pose.txt"), 4) for path in colours])
    intrinsics = read_intrinsics(folder / "camera-intrinsics.txt")
    return RgbdFrames(colours, FileLabels(depths, partial(read_depth, missing=MISSING)), poses, intrinsics)


def open_rgbd_depth(folder: str | Path, limit: int | None = None, high: float = 10.0) -> DepthData:
    """Depth data from one sequence of frames: the first half trains, the second half tests.

    Neighbouring frames of a sequence are near-duplicates, so the split is into contiguous halves, never by turns.

    Args:
        folder: see `read_rgbd`.
        limit: at most this many frames per half, evenly spread.
        high: the largest depth in metres (10 for indoor data, as for NYUv2 in EUPE's protocol).
    """
    frames = read_rgbd(folder)
    train, val = _halves(frames, limit, frames.depth.read)
    return DepthData(train, val, high=high)


def open_rgbd_normals(folder: str | Path, limit: int | None = None, window: int = 5) -> NormalsData:
    """Surface normals of the depth maps; split as by `open_rgbd_depth`.

    Args:
        folder: see `read_rgbd`.
        limit: at most this many frames per half, evenly spread.
        window: see `depth_to_normals`.
    """
    frames = read_rgbd(folder)

    def read(path: Path) -> Tensor:
        return depth_to_normals(frames.depth.read(path), frames.intrinsics, window)

    setting = f"normals, {window}, {frames.intrinsics.tolist()}"
    return NormalsData(*_halves(frames, limit, read, setting))


def open_rgbd_matching(
    folder: str | Path,
    limit: int | None = None,
    gaps: Sequence[int] = (1, 2, 3),
    overlap: float = 0.3,
    points: int = 64,
    tolerance: float = 0.05,
    seed: int = 0,
) -> MatchingData:
    """Pairs of frames a few places apart, with true correspondences from depth and poses (ours).

    A pixel of the first frame with a measured depth is carried into the second; it counts if it lands inside and the
    depth measured there agrees (no occlusion). Pairs that share too little of the picture are left out.

    Args:
        folder: see `read_rgbd`.
        limit: at most this many pairs, evenly spread.
        gaps: how many frames lie between the two of a pair, plus one.
        overlap: the least share of the first frame's measured pixels that the second must see.
        points: correspondences per pair, drawn at random among the true ones.
        tolerance: relative disagreement of depth up to which a point counts as seen.
        seed: names the draw of points.

    Raises:
        ValueError: no pair overlaps enough.
    """
    frames = read_rgbd(folder)
    pairs = [
        pair
        for source in range(len(frames.colours))
        for gap in gaps
        if (pair := _pair(frames, source, source + gap, overlap, points, tolerance, seed)) is not None
    ]
    if not pairs:
        raise ValueError(f"{folder}: no two frames {tuple(gaps)} apart share {overlap:.0%} of the picture")
    pictures = FilePictures(frames.colours)
    return MatchingData(pictures, pictures, [pairs[i] for i in spread(len(pairs), limit)])


def _halves(
    frames: RgbdFrames, limit: int | None, read: Callable[[Path], Tensor], setting: str = ""
) -> tuple[DensePictures, DensePictures]:
    middle = len(frames.colours) // 2
    if middle == 0:
        raise ValueError(f"{frames.colours[0].parent}: one frame cannot be split into training and test frames")
    halves = []
    for first, last in ((0, middle), (middle, len(frames.colours))):
        chosen = [first + index for index in spread(last - first, limit)]
        labels = FileLabels([frames.depth.paths[i] for i in chosen], read, setting)
        halves.append(DensePictures(FilePictures([frames.colours[i] for i in chosen]), labels))
    return halves[0], halves[1]


def _pair(
    frames: RgbdFrames, source: int, target: int, overlap: float, points: int, tolerance: float, seed: int
) -> PointPair | None:
    if target >= len(frames.colours):
        return None
    depth, other = frames.depth[source], frames.depth[target]
    here, there = covisible_points(
        depth, other, frames.intrinsics, frames.poses[source], frames.poses[target], tolerance
    )
    if len(here) < max(1, overlap * int((depth > 0).sum())):
        return None
    chosen = torch.randperm(len(here), generator=torch_generator(seed, "matching", source, target))[:points]
    height, width = depth.shape
    return PointPair(
        source, target, here[chosen], there[chosen], (height, width), (height, width), reach=max(height, width)
    )


def _beside(colour: Path, ending: str) -> Path:
    return colour.with_name(f"{colour.stem.removesuffix('.color')}.{ending}")


def read_intrinsics(path: Path) -> Tensor:
    """A 3x3 pinhole matrix in a text file, [3, 3] float64.

    Raises:
        LayoutError: no such file.
        ValueError: another shape.
    """
    return _read_matrix(path, 3)


def _read_matrix(path: Path, side: int) -> Tensor:
    matrix = np.loadtxt(LAYOUT.file(path), ndmin=2)
    if matrix.shape != (side, side):
        raise ValueError(f"{path}: expected a {side}x{side} matrix, got {matrix.shape}")
    return torch.from_numpy(matrix)
