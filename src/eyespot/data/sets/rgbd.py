"""RGB-D frames with camera poses, in the layout of 7-Scenes: metric depth, surface normals, geometric matching."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from eyespot.data.labelled.base import (
    DensePictures,
    DepthData,
    FileLabels,
    FilePictures,
    MatchingData,
    NormalsData,
    PointPair,
)
from eyespot.data.labelled.geometry import covisible_points, depth_to_normals
from eyespot.data.labelled.label_files import read_depth
from eyespot.data.labelled.rgbd import MISSING, beside, halves, list_frames, read_intrinsics, read_matrix
from eyespot.data.loading.sampling import spread
from eyespot.randomness import torch_generator


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
    colours = list_frames(folder)
    depths = [beside(path, "depth.png") for path in colours]
    poses = torch.stack([read_matrix(beside(path, "pose.txt"), 4) for path in colours])
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
    parts = []
    for half in halves(len(frames.colours), frames.colours[0].parent):
        chosen = [half[index] for index in spread(len(half), limit)]
        labels = FileLabels([frames.depth.paths[i] for i in chosen], read, setting)
        parts.append(DensePictures(FilePictures([frames.colours[i] for i in chosen]), labels))
    return parts[0], parts[1]


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
