"""The toybox as labelled data: of a kind for each protocol, and with the maps of six tasks at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot.data.labelled.base import (
    ClassificationData,
    DensePictures,
    DepthData,
    LabelledPictures,
    MatchingData,
    NormalsData,
    PointPair,
    RetrievalData,
    SegmentationData,
    TensorPictures,
)
from eyespot.data.labelled.edges import thinned
from eyespot.data.labelled.points import point_maps
from eyespot.data.labelled.samples import MultiTaskSample, Split
from eyespot.data.loading.sampling import spread
from eyespot.data.sources.fingerprint import fingerprint_of
from eyespot.data.toybox.cards import WORDS
from eyespot.data.toybox.render import render
from eyespot.data.toybox.scenes import COLOURS, SHAPES
from eyespot.data.toybox.source import TOYBOX_VERSION
from eyespot.data.toybox.spec import (
    FIRST_MULTITASK_VALIDATION,
    FIRST_PROBE_TRAINING,
    FIRST_PROBE_VALIDATION,
    FIRST_TRAINING,
    LABELLED_COUNT,
    PROBE_SEEDS,
    SCENES_PER_PROBE_SEED,
    SIZE,
    probe_scenes,
    read_toybox_spec,
)
from eyespot.data.toybox.truth import SEMANTIC_CLASSES
from eyespot.dense_tasks import IGNORE, DenseTask, dense_task

_RENDERED_AT_ONCE = 50
_CHUNK = 16
_SURFACES = tuple(SEMANTIC_CLASSES)
TASKS = {
    "segmentation": dense_task("classes", len(_SURFACES), names=_SURFACES),
    "saliency": dense_task("saliency"),
    "boundary": dense_task("boundary"),
    "normals": dense_task("normals"),
    "depth": dense_task("depth"),
    "keypoints": dense_task("keypoints", len(_SURFACES), names=_SURFACES),
}


@dataclass(frozen=True)
class ToyboxConfig:
    """How many scenes.

    Attributes:
        train: scenes on which probes are trained.
        val: other scenes, on which they are measured.
        pairs: validation scenes that are also seen by the second camera, for matching.
        size: pixels per side at which scenes are rendered; encoders get them resized to their own size.
        seed: another seed, other scenes (0 to 499).
    """

    train: int = LABELLED_COUNT
    val: int = LABELLED_COUNT // 2
    pairs: int = 200
    size: int = SIZE
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.train, self.val, self.pairs) < 1 or max(self.train, self.val) > SCENES_PER_PROBE_SEED:
            raise ValueError(f"train, val and pairs must lie between 1 and {SCENES_PER_PROBE_SEED:,}: {self}")
        if not 0 <= self.seed < PROBE_SEEDS:
            raise ValueError(f"the seed of the toybox must lie in 0 to {PROBE_SEEDS - 1}, got {self.seed}")

    @staticmethod
    def parse(spec: str, limit: int | None = None, seed: int = 0) -> ToyboxConfig:
        """As many scenes as a spec asks for.

        Args:
            spec: toybox[:COUNT[@SIZE]]; COUNT scenes train, half as many others validate.
            limit: at most this many scenes per split.
            seed: see `ToyboxConfig`.

        Raises:
            ValueError: another form.
        """
        asked = read_toybox_spec(spec)
        train, val = asked.count, asked.validation
        if limit is not None:
            train, val = min(train, limit), min(val, limit)
        return ToyboxConfig(train, val, min(val, ToyboxConfig.pairs), asked.size, seed)


@dataclass(frozen=True)
class _Scenes:
    """What the tasks need of rendered scenes, compactly."""

    pictures: TensorPictures
    captions: list[str]
    depth: Tensor
    normals: Tensor
    semantic: Tensor
    shape: Tensor
    colour: Tensor
    word: Tensor
    keypoints: Tensor
    visible: Tensor


class ToyboxData:
    """The toybox's scenes as data for each task. Scenes are rendered when a task first asks for them, and kept."""

    def __init__(self, config: ToyboxConfig) -> None:
        self.config = config

    def scenes(self, split: Split) -> range:
        """The numbers of the scenes of a split."""
        first, count = {
            "train": (FIRST_PROBE_TRAINING, self.config.train),
            "val": (FIRST_PROBE_VALIDATION, self.config.val),
        }[split]
        return probe_scenes(first, count, self.config.seed)

    def classification(self) -> ClassificationData:
        """Shape of the main object."""
        train, val = self._train, self._val
        return ClassificationData(
            LabelledPictures(train.pictures, train.shape), LabelledPictures(val.pictures, val.shape), list(SHAPES)
        )

    def naming(self) -> ClassificationData:
        """Colour and shape of the main object, by names such as "red sphere"."""
        names = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
        train, val = (
            LabelledPictures(part.pictures, part.colour * len(SHAPES) + part.shape) for part in (self._train, self._val)
        )
        return ClassificationData(train, val, names)

    def reading(self) -> ClassificationData:
        """The word on the card; scenes without a card are left out."""
        train, val = self._train, self._val
        return ClassificationData(
            LabelledPictures(train.pictures, train.word), LabelledPictures(val.pictures, val.word), list(WORDS)
        )

    def pictures(self) -> TensorPictures:
        """The validation scenes without labels."""
        return self._val.pictures

    def captions(self) -> RetrievalData:
        """The validation scenes with one caption each, which names all solids and the word on the card."""
        return RetrievalData(self._val.pictures, [[caption] for caption in self._val.captions])

    def segmentation(self) -> SegmentationData:
        """Semantic classes."""
        train, val = self._train, self._val
        return SegmentationData(
            DensePictures(train.pictures, train.semantic),
            DensePictures(val.pictures, val.semantic),
            len(SEMANTIC_CLASSES),
            IGNORE,
        )

    def depth(self) -> DepthData:
        """Metric depth; the bins span the depths of the training scenes."""
        train, val = self._train, self._val
        return DepthData(
            DensePictures(train.pictures, train.depth),
            DensePictures(val.pictures, val.depth),
            low=float(train.depth.amin()),
            high=float(train.depth.amax()),
        )

    def normals(self) -> NormalsData:
        """Surface normals, exact but for float16 (about 0.02 degrees), in which they are kept."""
        train, val = self._train, self._val
        return NormalsData(
            DensePictures(train.pictures, train.normals.float()), DensePictures(val.pictures, val.normals.float())
        )

    def matching(self) -> MatchingData:
        """Key points that both cameras see, from camera 0 (validation scenes) to camera 1."""
        here, there = self._val, self._other_view
        pairs = []
        for scene in range(self.config.pairs):
            both = here.visible[scene] & there.visible[scene]
            if bool(both.any()):
                points = (here.keypoints[scene][both], there.keypoints[scene][both])
                side = self.config.size
                pairs.append(PointPair(scene, scene, *points, (side, side), (side, side), reach=side))
        return MatchingData(here.pictures, there.pictures, pairs)

    def multitask(self) -> ToyboxScenes:
        """Other validation scenes, as many and as large, with the maps of six tasks."""
        return open_toybox_maps(f"toybox:{self.config.train}@{self.config.size}", "val", self.config.val)

    @cached_property
    def _train(self) -> _Scenes:
        return _render(self.scenes("train"), self.config.size, camera=0)

    @cached_property
    def _val(self) -> _Scenes:
        return _render(self.scenes("val"), self.config.size, camera=0)

    @cached_property
    def _other_view(self) -> _Scenes:
        return _render(self.scenes("val")[: self.config.pairs], self.config.size, camera=1)


def _render(numbers: Sequence[int], size: int, camera: int) -> _Scenes:
    parts, captions = [], []
    for start in range(0, len(numbers), _RENDERED_AT_ONCE):
        scenes = render(numbers[start : start + _RENDERED_AT_ONCE], size, camera=camera)
        captions += scenes.captions
        parts.append(
            (
                (scenes.images * 255).round().to(torch.uint8),
                scenes.depth.float(),
                scenes.normals.half(),
                scenes.semantic.to(torch.uint8),
                scenes.shape,
                scenes.colour,
                scenes.word,
                scenes.keypoints.float(),
                scenes.keypoints_visible,
            )
        )
    images, *others = (torch.cat(column) for column in zip(*parts, strict=True))
    return _Scenes(TensorPictures(images), captions, *others)


def open_toybox_maps(spec: str, split: Split, limit: int | None = None) -> ToyboxScenes:
    """Opens toybox[:COUNT[@SIZE]]: COUNT scenes train, half as many others validate.

    Training sees the scenes that `ToyboxSource` shows; validation others, which no probe is trained on.

    Args:
        spec: see above; 1000@96 by default.
        split: which scenes.
        limit: at most this many, evenly spread.

    Raises:
        ValueError: another form, or pictures of fewer than 8 pixels a side.
    """
    asked = read_toybox_spec(spec)
    first, count = {
        "train": (FIRST_TRAINING, asked.count),
        "val": (FIRST_MULTITASK_VALIDATION, asked.validation),
    }[split]
    return ToyboxScenes(spec, [first + index for index in spread(count, limit)], asked.size)


@dataclass(frozen=True)
class _MapScene:
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
    _kept: dict[int, list[_MapScene]] = field(default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.seeds)

    def picture_name(self, index: int) -> str:
        """See `MultiTaskData.picture_name`."""
        return f"toybox scene {self.seeds[index]}"

    def read(self, index: int) -> MultiTaskSample:
        """See `MultiTaskData.read`."""
        chunk, place = divmod(index, _CHUNK)
        if chunk not in self._kept:
            self._kept[chunk] = _render_maps(self.seeds[chunk * _CHUNK : (chunk + 1) * _CHUNK], self.size)
        scene = self._kept[chunk][place]
        return MultiTaskSample(scene.image, {task: _map(scene, task) for task in self.tasks})

    def fingerprint(self) -> str:
        """See `MultiTaskData.fingerprint`."""
        return fingerprint_of(
            [f"toybox {TOYBOX_VERSION} labels 1", f"size {self.size}", *self.tasks, *map(str, self.seeds)]
        )


def _render_maps(seeds: list[int], size: int) -> list[_MapScene]:
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
        scene = _MapScene(
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


def _map(scene: _MapScene, task: str) -> Tensor:
    if task == "keypoints":
        return point_maps(scene.points, len(_SURFACES), (scene.depth.shape[0], scene.depth.shape[1]))
    label: Tensor = getattr(scene, task)
    return F.normalize(label.float(), dim=0) if task == "normals" else label
