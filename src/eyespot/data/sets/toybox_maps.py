"""The toybox with the labels of six tasks."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot.data.labelled.edges import thinned
from eyespot.data.labelled.points import point_maps
from eyespot.data.labelled.samples import MultiTaskSample, Split
from eyespot.data.loading.sampling import spread
from eyespot.data.sources.fingerprint import fingerprint_of
from eyespot.data.toybox.render import render
from eyespot.data.toybox.source import TOYBOX_VERSION
from eyespot.data.toybox.truth import SEMANTIC_CLASSES
from eyespot.dense_tasks import DenseTask, dense_task

FIRST_SCENE: dict[Split, int] = {"train": 0, "val": 1_700_000_000}
"""Training sees the scenes that `ToyboxSource` shows; validation others, which no probe is trained or measured on."""
_CHUNK = 16
_NAMES = tuple(SEMANTIC_CLASSES)
TASKS = {
    "segmentation": dense_task("classes", len(_NAMES), names=_NAMES),
    "saliency": dense_task("saliency"),
    "boundary": dense_task("boundary"),
    "normals": dense_task("normals"),
    "depth": dense_task("depth"),
    "keypoints": dense_task("keypoints", len(_NAMES), names=_NAMES),
}


@dataclass(frozen=True)
class _Scene:
    """One rendered scene, compactly."""

    image: Tensor
    segmentation: Tensor
    saliency: Tensor
    boundary: Tensor
    normals: Tensor
    depth: Tensor
    points: list[tuple[int, float, float]]


@dataclass(frozen=True)
class ToyboxScenes:
    """Rendered scenes with exact labels; 16 are rendered at a time when first asked for, and kept in memory.

    "segmentation" is ground, wall, card and six shapes, "saliency" the main object, "boundary" where instances meet,
    thinned to one pixel. The scenes' 16 surface points have no types of their own; for "keypoints" (ours) a visible
    point is of the class of the surface it lies on.

    Attributes:
        name: see `MultiTaskData`.
        seeds: of the scenes.
        size: side of the pictures in pixels.
        tasks: which labels samples have.
    """

    name: str
    seeds: list[int]
    size: int
    tasks: dict[str, DenseTask] = field(default_factory=lambda: dict(TASKS))
    _kept: dict[int, list[_Scene]] = field(default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.seeds)

    def picture_name(self, index: int) -> str:
        """See `MultiTaskData.picture_name`."""
        return f"toybox scene {self.seeds[index]}"

    def read(self, index: int) -> MultiTaskSample:
        """See `MultiTaskData.read`."""
        chunk, place = divmod(index, _CHUNK)
        if chunk not in self._kept:
            self._kept[chunk] = _render(self.seeds[chunk * _CHUNK : (chunk + 1) * _CHUNK], self.size)
        scene = self._kept[chunk][place]
        return MultiTaskSample(scene.image, {task: _label(scene, task) for task in self.tasks})

    def fingerprint(self) -> str:
        """See `MultiTaskData.fingerprint`."""
        return fingerprint_of(
            [f"toybox {TOYBOX_VERSION} labels 1", f"size {self.size}", *self.tasks, *map(str, self.seeds)]
        )


def open_toybox(spec: str, split: Split, limit: int | None = None) -> ToyboxScenes:
    """Opens "toybox", "toybox:COUNT" or "toybox:COUNT@SIZE": COUNT scenes train, half as many others validate.

    Args:
        spec: see above; 1000@96 by default.
        split: which scenes.
        limit: at most this many, evenly spread.

    Raises:
        ValueError: another form, or pictures of fewer than 8 pixels a side.
    """
    match = re.fullmatch(r"toybox(?::([1-9]\d*)(?:@([1-9]\d*))?)?", spec)
    if match is None:
        raise ValueError(f"{spec!r} is not of the form toybox[:COUNT[@SIZE]], for example toybox:1000@96")
    count, size = int(match[1] or 1000), int(match[2] or 96)
    if size < 8:
        raise ValueError(f"{spec!r}: a toybox picture has at least 8 pixels a side")
    if split == "val":
        count = max(1, count // 2)
    return ToyboxScenes(spec, [FIRST_SCENE[split] + index for index in spread(count, limit)], size)


def _render(seeds: list[int], size: int) -> list[_Scene]:
    scenes = render(seeds, size)
    found = []
    for row in range(len(scenes)):
        segmentation = scenes.semantic[row].to(torch.uint8)
        points = [
            (int(segmentation[int(y), int(x)]), x, y)
            for (x, y), visible in zip(
                scenes.keypoints[row].tolist(), scenes.keypoints_visible[row].tolist(), strict=True
            )
            if visible
        ]
        scene = _Scene(
            image=(scenes.images[row] * 255).round().to(torch.uint8),
            segmentation=segmentation,
            saliency=scenes.saliency[row].to(torch.uint8),
            boundary=thinned(scenes.boundaries[row]).to(torch.uint8),
            normals=scenes.normals[row].half(),
            depth=scenes.depth[row].float().clone(),
            points=points,
        )
        found.append(scene)
    return found


def _label(scene: _Scene, task: str) -> Tensor:
    if task == "keypoints":
        return point_maps(scene.points, len(_NAMES), (scene.depth.shape[0], scene.depth.shape[1]))
    label: Tensor = getattr(scene, task)
    return F.normalize(label.float(), dim=0) if task == "normals" else label
