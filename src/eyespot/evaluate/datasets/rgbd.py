"""RGB-D frames with camera poses, in the layout of 7-Scenes: metric depth and geometric correspondence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eyespot.data.randomness import torch_generator
from eyespot.evaluate.datasets.base import (
    DensePictures,
    DepthData,
    FilePictures,
    LayoutError,
    MatchingData,
    PointPair,
    list_pictures,
    spread,
    upright_size,
)
from eyespot.evaluate.geometry import covisible_points

EXPECTED = (
    "expected camera-intrinsics.txt (3x3) and, for each frame, NAME.color.jpg, NAME.depth.png (16 bit, millimetres, "
    "0 or 65535 = no measurement) and NAME.pose.txt (4x4, camera to world, metres)"
)
MISSING = 65535


@dataclass(frozen=True)
class RgbdFrames:
    """Frames in order of their names.

    Attributes:
        colours: the colour files.
        depth: [N, H, W] float32 metres along the optical axis, 0 = no measurement.
        poses: [N, 4, 4] float64, camera to world.
        intrinsics: [3, 3] float64, for pixels of the depth map.
    """

    colours: list[Path]
    depth: Tensor
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
        raise LayoutError(f"no *.color.jpg in {folder}; {EXPECTED}")
    depth = torch.stack([_read_depth(path) for path in colours])
    poses = torch.stack([_read_matrix(_beside(path, "pose.txt"), 4) for path in colours])
    return RgbdFrames(colours, depth, poses, _read_matrix(folder / "camera-intrinsics.txt", 3))


def open_rgbd_depth(folder: str | Path, limit: int | None = None, high: float = 10.0) -> DepthData:
    """Depth data from one sequence of frames: the first half trains, the second half tests.

    Neighbouring frames of a sequence are near-duplicates, so the split is into contiguous halves, never by turns.

    Args:
        folder: see `read_rgbd`.
        limit: at most this many frames per half, evenly spread.
        high: the largest depth in metres (10 for indoor data, as for NYUv2 in EUPE's protocol).
    """
    frames = read_rgbd(folder)
    middle = len(frames.colours) // 2
    if middle == 0:
        raise ValueError(f"{folder}: one frame cannot be split into training and test frames")
    halves = []
    for first, last in ((0, middle), (middle, len(frames.colours))):
        chosen = [first + index for index in spread(last - first, limit)]
        halves.append(DensePictures(FilePictures([frames.colours[i] for i in chosen]), frames.depth[chosen]))
    return DepthData(halves[0], halves[1], high=high)


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
    height, width = frames.depth.shape[1:]
    return MatchingData(pictures, pictures, [pairs[i] for i in spread(len(pairs), limit)], (height, width))


def _pair(
    frames: RgbdFrames, source: int, target: int, overlap: float, points: int, tolerance: float, seed: int
) -> PointPair | None:
    if target >= len(frames.colours):
        return None
    depths, poses = frames.depth[[source, target]], frames.poses[[source, target]]
    here, there = covisible_points(depths[0], depths[1], frames.intrinsics, poses[0], poses[1], tolerance)
    if len(here) < max(1, overlap * int((depths[0] > 0).sum())):
        return None
    chosen = torch.randperm(len(here), generator=torch_generator(seed, "matching", source, target))[:points]
    return PointPair(source, target, here[chosen], there[chosen])


def _beside(colour: Path, ending: str) -> Path:
    return colour.with_name(f"{colour.stem.removesuffix('.color')}.{ending}")


def _read_depth(colour: Path) -> Tensor:
    path = _beside(colour, "depth.png")
    if not path.is_file():
        raise LayoutError(f"no {path}; {EXPECTED}")
    size = upright_size(colour)
    with Image.open(path) as depth:
        if depth.size != size:
            raise ValueError(f"{path}: depth is {depth.size}, the colour picture {size}; register them first")
        millimetres = np.asarray(depth).astype(np.int64)
    if millimetres.ndim != 2:
        raise ValueError(f"{path}: depth must have a single channel, got {millimetres.shape}")
    return torch.from_numpy(np.where(millimetres == MISSING, 0, millimetres / 1000).astype(np.float32))


def _read_matrix(path: Path, side: int) -> Tensor:
    if not path.is_file():
        raise LayoutError(f"no {path}; {EXPECTED}")
    matrix = np.loadtxt(path, ndmin=2)
    if matrix.shape != (side, side):
        raise ValueError(f"{path}: expected a {side}x{side} matrix, got {matrix.shape}")
    return torch.from_numpy(matrix)
