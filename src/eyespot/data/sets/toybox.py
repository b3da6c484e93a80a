"""The toybox as labelled data for every task: training and validation scenes rendered once, shared by all tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
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

# Scene numbers far above those that training draws from, which count from 0.
FIRST_TRAIN_SCENE = 1_000_000_000
FIRST_VAL_SCENE = 1_500_000_000
SCENES_PER_SEED = 1_000_000
CHUNK = 50
IGNORE = 255


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

    train: int = 1000
    val: int = 500
    pairs: int = 200
    size: int = 96
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.train, self.val, self.pairs) < 1 or max(self.train, self.val) > SCENES_PER_SEED:
            raise ValueError(f"train, val and pairs must lie between 1 and {SCENES_PER_SEED:,}: {self}")
        if not 0 <= self.seed < 500:
            raise ValueError(f"the seed of the toybox must lie in 0 to 499, got {self.seed}")

    @staticmethod
    def parse(spec: str, limit: int | None = None, seed: int = 0) -> ToyboxConfig:
        """Reads "toybox", "toybox:COUNT" or "toybox:COUNT@SIZE"; COUNT scenes train, half as many validate.

        Args:
            spec: see above.
            limit: at most this many scenes per split.
            seed: see `ToyboxConfig`.

        Raises:
            ValueError: another form.
        """
        counts, _, size_text = spec.removeprefix("toybox").removeprefix(":").partition("@")
        try:
            train = int(counts) if counts else ToyboxConfig.train
            size = int(size_text) if size_text else ToyboxConfig.size
        except ValueError:
            raise ValueError(f"{spec!r}: write toybox, toybox:COUNT or toybox:COUNT@SIZE, e.g. toybox:600@64") from None
        val = max(1, train // 2)
        if limit is not None:
            train, val = min(train, limit), min(val, limit)
        return ToyboxConfig(train, val, min(val, ToyboxConfig.pairs), size, seed)


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

    def classification(self) -> ClassificationData:
        """Shape of the main object."""
        from eyespot.data.toybox import SHAPES

        train, val = self._train, self._val
        return ClassificationData(
            LabelledPictures(train.pictures, train.shape), LabelledPictures(val.pictures, val.shape), list(SHAPES)
        )

    def naming(self) -> ClassificationData:
        """Colour and shape of the main object, by names such as "red sphere"."""
        from eyespot.data.toybox import COLOURS, SHAPES

        names = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
        train, val = (
            LabelledPictures(part.pictures, part.colour * len(SHAPES) + part.shape) for part in (self._train, self._val)
        )
        return ClassificationData(train, val, names)

    def reading(self) -> ClassificationData:
        """The word on the card; scenes without a card are left out."""
        from eyespot.data.toybox import WORDS

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
        from eyespot.data.toybox import SEMANTIC_CLASSES

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

    @cached_property
    def _train(self) -> _Scenes:
        return _render(self._numbers(FIRST_TRAIN_SCENE, self.config.train), self.config.size, camera=0)

    @cached_property
    def _val(self) -> _Scenes:
        return _render(self._numbers(FIRST_VAL_SCENE, self.config.val), self.config.size, camera=0)

    @cached_property
    def _other_view(self) -> _Scenes:
        return _render(self._numbers(FIRST_VAL_SCENE, self.config.pairs), self.config.size, camera=1)

    def _numbers(self, first: int, count: int) -> range:
        start = first + self.config.seed * SCENES_PER_SEED
        return range(start, start + count)


def _render(numbers: Sequence[int], size: int, camera: int) -> _Scenes:
    from eyespot.data.toybox import render

    parts, captions = [], []
    for start in range(0, len(numbers), CHUNK):
        scenes = render(numbers[start : start + CHUNK], size, camera=camera)
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
