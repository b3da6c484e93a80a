"""RGB-D frames with camera poses, in the layout of 7-Scenes: depth, surface normals, boundaries, geometric matching."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
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
from eyespot.data.labelled.edges import surface_boundaries
from eyespot.data.labelled.files import FileData, MapReader
from eyespot.data.labelled.geometry import covisible_points, depth_to_normals
from eyespot.data.labelled.label_files import check_size, read_depth, read_matrix, stored_size
from eyespot.data.labelled.layout import Layout, list_pictures
from eyespot.data.labelled.samples import Split
from eyespot.data.loading.sampling import spread
from eyespot.dense_tasks import dense_task
from eyespot.randomness import torch_generator

LAYOUT = Layout(
    "RGB-D frames",
    "FOLDER/camera-intrinsics.txt (3x3) and, for each frame, FOLDER/NAME.color.jpg, NAME.depth.png (16 bit, "
    "millimetres, 0 or 65535 = no measurement) and NAME.pose.txt (4x4, camera to world, metres)",
    "7-Scenes on Microsoft Research's site, one sequence per folder, or your own camera",
)
FARTHEST = 10.0
"""Depths beyond so many metres count as not measured, as in the protocols for indoor depth."""
TASKS = {"depth": dense_task("depth"), "normals": dense_task("normals"), "boundary": dense_task("boundary")}


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
    colours = _list_frames(folder)
    depths = [_beside(path, "depth.png") for path in colours]
    poses = torch.stack([read_matrix(LAYOUT.file(_beside(path, "pose.txt")), 4) for path in colours])
    intrinsics = read_matrix(LAYOUT.file(_intrinsics_of(folder)), 3)
    return RgbdFrames(colours, FileLabels(depths, read_frame_depth), poses, intrinsics)


def open_rgbd_depth(folder: str | Path, limit: int | None = None, high: float = 10.0) -> DepthData:
    """Depth data from one sequence of frames: the first half trains, the second half tests.

    Neighbouring frames of a sequence are near-duplicates, so the split is into contiguous halves, never by turns.

    Args:
        folder: see `read_rgbd`.
        limit: at most this many frames per half, evenly spread.
        high: the largest depth in metres (10 for indoor data, as for NYUv2 in EUPE's protocol).
    """
    frames = read_rgbd(folder)
    train, val = _dense(frames, limit, frames.depth.read)
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
    return NormalsData(*_dense(frames, limit, read, setting))


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


def _dense(
    frames: RgbdFrames, limit: int | None, read: Callable[[Path], Tensor], setting: str = ""
) -> tuple[DensePictures, DensePictures]:
    parts = []
    for half in _halves(len(frames.colours), frames.colours[0].parent):
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


def open_kitchen_maps(name: str, folder: Path, split: Split, limit: int | None = None) -> Kitchen:
    """One sequence of frames for several tasks: its first half trains, its second half validates, as for depth alone.

    Normals and boundaries are derived from the depth maps; see `depth_to_normals` and `surface_boundaries` (both ours).

    Args:
        name: what reports call it.
        folder: see `LAYOUT`; camera poses are not read.
        split: which half.
        limit: at most this many frames, evenly spread.

    Raises:
        LayoutError: no frames, or one without depth.
        ValueError: sizes disagree, or there is one frame only.
    """
    frames = _list_frames(folder)
    half = _halves(len(frames), folder)[split == "val"]
    return Kitchen(name, folder, dict(TASKS), [frames[half[index]] for index in spread(len(half), limit)])


@dataclass(frozen=True)
class Kitchen(FileData):
    """See `open_kitchen_maps`; named after 7-Scenes' kitchen."""

    layout = LAYOUT

    def files(self, task: str, picture: Path) -> list[Path]:
        """See `FileData.files`: all maps come from the depth map."""
        depth = _beside(picture, "depth.png")
        return [depth] if task == "depth" else [depth, _intrinsics_of(self.folder)]

    def maps(self, picture: Path) -> dict[str, MapReader]:
        """See `FileData.maps`."""
        depth = cache(lambda: read_frame_depth(_beside(picture, "depth.png"), FARTHEST))
        normals = cache(lambda: depth_to_normals(depth(), read_matrix(_intrinsics_of(self.folder), 3)))
        return {"depth": depth, "normals": normals, "boundary": lambda: surface_boundaries(depth(), normals())}


def read_frame_depth(file: Path, high: float = float("inf")) -> Tensor:
    """The depth map of a frame up to `high` metres, see `read_depth`."""
    return read_depth(file, high=high)


def _list_frames(folder: Path) -> list[Path]:
    """The colour files of all frames, in order of their names; each has its depth map beside it.

    Raises:
        LayoutError: no frames, or one without a depth map.
        ValueError: a depth map is not of its picture's size.
    """
    colours = [path for path in list_pictures(folder) if path.stem.endswith(".color")] if folder.is_dir() else []
    if not colours:
        raise LAYOUT.missing(f"*.color.jpg in {folder}")
    for colour in colours:
        depth = LAYOUT.file(_beside(colour, "depth.png"))
        check_size(depth, stored_size(depth), colour)
    return colours


def _beside(colour: Path, ending: str) -> Path:
    """Another file of the frame of a colour file: "depth.png" or "pose.txt"."""
    return colour.with_name(f"{colour.stem.removesuffix('.color')}.{ending}")


def _intrinsics_of(folder: Path) -> Path:
    return folder / "camera-intrinsics.txt"


def _halves(frames: int, where: Path) -> tuple[range, range]:
    """Training and test frames of one sequence: its first and its second half.

    Neighbouring frames of a sequence are near-duplicates, so the split is into contiguous halves, never by turns.

    Raises:
        ValueError: there is one frame only; `where` says of which folder.
    """
    middle = frames // 2
    if middle == 0:
        raise ValueError(f"{where}: one frame cannot be split into training and test frames")
    return range(middle), range(middle, frames)
