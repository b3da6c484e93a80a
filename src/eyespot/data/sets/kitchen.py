"""RGB-D frames, as of 7-Scenes' kitchen: depth, surface normals, and the boundaries of surfaces."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from eyespot.data.labelled.edges import surface_boundaries
from eyespot.data.labelled.files import FileData
from eyespot.data.labelled.geometry import depth_to_normals
from eyespot.data.labelled.label_files import read_depth
from eyespot.data.labelled.rgbd import LAYOUT, MISSING, beside, halves, list_frames, read_intrinsics
from eyespot.data.labelled.samples import Split
from eyespot.data.loading.sampling import spread
from eyespot.dense_tasks import dense_task

FARTHEST = 10.0
"""Depths beyond so many metres count as not measured, as in the protocols for indoor depth."""
TASKS = {"depth": dense_task("depth"), "normals": dense_task("normals"), "boundary": dense_task("boundary")}


@dataclass(frozen=True)
class Kitchen(FileData):
    """See `open_kitchen`."""

    layout = LAYOUT

    def files(self, task: str, picture: Path) -> list[Path]:
        """See `FileData.files`: all labels come from the depth map."""
        depth = beside(picture, "depth.png")
        return [depth] if task == "depth" else [depth, self.folder / "camera-intrinsics.txt"]

    def label(self, task: str, picture: Path) -> Tensor:
        """See `FileData.label`."""
        depth = read_depth(beside(picture, "depth.png"), high=FARTHEST, missing=MISSING)
        if task == "depth":
            return depth
        normals = depth_to_normals(depth, read_intrinsics(self.folder / "camera-intrinsics.txt"))
        return normals if task == "normals" else surface_boundaries(depth, normals)


def open_kitchen(name: str, folder: Path, split: Split, limit: int | None = None) -> Kitchen:
    """One sequence of frames: its first half trains, its second half validates, as for depth alone.

    Normals and boundaries are derived from the depth maps; see `depth_to_normals` and `surface_boundaries` (both ours).

    Args:
        name: what reports call it.
        folder: see `eyespot.data.labelled.rgbd.LAYOUT`; camera poses are not read.
        split: which half.
        limit: at most this many frames, evenly spread.

    Raises:
        LayoutError: no frames, or one without depth.
        ValueError: sizes disagree, or there is one frame only.
    """
    frames = list_frames(folder)
    half = halves(len(frames), folder)[split == "val"]
    chosen = [frames[half[index]] for index in spread(len(half), limit)]
    return Kitchen(name, folder, dict(TASKS), chosen)
