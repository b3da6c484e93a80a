"""Predictions of the dense tasks, laid beside picture and truth: semantic classes, depth, surface normals.

The probes are those of the tasks' quick schedule, fitted as `evaluate` fits them; only a few pictures are shown.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyespot.data.labelled.base import DepthData, NormalsData, SegmentationData
from eyespot.data.loading.sampling import spread
from eyespot.evaluate.extraction import FeatureBank
from eyespot.evaluate.probing.probe import class_map, upsampled
from eyespot.evaluate.protocols import depth, normals, segmentation
from eyespot.report.drawing.paints import Paint, at, class_painter, depth_painter, paint_normals, small
from eyespot.report.exhibits.figures import PICTURE_SIDE, AnyFigure, PictureGrid, Scale, shrunk
from eyespot.report.exhibits.gallery import Findings

PROBE = "closed form or L-BFGS, penalty chosen on held-out training pictures"
"""Names the probes in what is kept: another one draws anew."""


@dataclass(frozen=True)
class _DenseExhibit(ABC):
    """What the three have in common.

    Attributes:
        data: pictures with maps; probes are fitted on the one split, the other is shown.
        shown: how many validation pictures, spread evenly over the split.
        seed: of the probe.
        options: of the task; the schedule alone counts.
    """

    data: Any
    shown: int = 3
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    name: ClassVar[str]
    title: ClassVar[str]
    words: ClassVar[str]
    quick_head: ClassVar[Callable[[Tensor, Any, int], nn.Module]]
    """(training patches, data, seed) -> the fitted probe."""

    @property
    def setting(self) -> Mapping[str, Any]:
        """See `Exhibit`."""
        return {"shown": self.shown, "seed": self.seed, "probe": PROBE, "side": PICTURE_SIDE}

    def look(self, bank: FeatureBank) -> list[Tensor]:
        """Per shown picture the predicted map at the size of the page, then one score per picture."""
        train, val = bank.features(self.data.train.pictures), bank.features(self.data.val.pictures)
        head = type(self).quick_head(train.patches, self.data, self.seed)
        maps, scores = [], []
        with torch.inference_mode():
            for index in self._chosen:
                output = head(val.patches[index : index + 1].float())[0]
                found, score = self._judged(output, self.data.val.labels[index])
                maps.append(small(found).clone())
                scores.append(score)
        return [*maps, torch.tensor(scores)]

    def draw(self, findings: Findings) -> list[AnyFigure]:
        """Picture, truth and every encoder's prediction."""
        photos = [shrunk(self.data.val.pictures.original(index)) for index in self._chosen]
        truths = [small(self.data.val.labels[index]) for index in self._chosen]
        paint, scale = self._painter(truths)

        def column(maps: Sequence[Tensor]) -> list[Tensor]:
            return [paint(at(one, photo), photo) for one, photo in zip(maps, photos, strict=True)]

        columns = {"picture": photos, "truth": column(truths)}
        columns |= {label: column(found[:-1]) for label, found in findings.items()}
        notes = {label: [self._words_for(score) for score in found[-1].tolist()] for label, found in findings.items()}
        return [PictureGrid(self.title, f"{self.words} {self._origin}", columns, notes, scale)]

    @cached_property
    def _chosen(self) -> list[int]:
        return spread(len(self.data.val.labels), self.shown)

    @property
    def _origin(self) -> str:
        is_quick = self.options.get("schedule", "quick") == "quick"
        other = "" if is_quick else " (not that of the published schedule, which the table measures)"
        return f"Made by the quick linear probe on frozen patches{other}."

    @abstractmethod
    def _judged(self, output: Tensor, truth: Tensor) -> tuple[Tensor, float]:
        """From an output [K, h, w]: the map at the truth's size, and its score there (NaN: nothing to compare)."""

    def _words_for(self, score: float) -> str:
        return "–" if math.isnan(score) else self._note(score)

    @abstractmethod
    def _note(self, score: float) -> str:
        """A score in words."""

    @abstractmethod
    def _painter(self, truths: Sequence[Tensor]) -> tuple[Paint, Scale | None]:
        """How maps are drawn, given the true ones."""


@dataclass(frozen=True)
class Segmentation(_DenseExhibit):
    """Semantic classes over the picture in grey; see `_DenseExhibit`."""

    data: SegmentationData

    name: ClassVar[str] = "segmentation"
    title: ClassVar[str] = "Semantic segmentation"
    words: ClassVar[str] = (
        "Semantic classes over the picture, with dark borders between them; equal colours are equal classes, grey is "
        "not labelled. Below: the share of labelled pixels that are right."
    )
    quick_head: ClassVar[Callable[[Tensor, Any, int], nn.Module]] = segmentation.quick_head

    def _judged(self, output: Tensor, truth: Tensor) -> tuple[Tensor, float]:
        found = class_map(output, (truth.shape[0], truth.shape[1]))
        return found.int(), float((found == truth)[truth != self.data.ignore].double().mean())

    def _note(self, score: float) -> str:
        return f"{100 * score:.0f} % right"

    def _painter(self, truths: Sequence[Tensor]) -> tuple[Paint, Scale | None]:
        return class_painter(truths, self.data.classes, self.data.ignore), None


@dataclass(frozen=True)
class Depth(_DenseExhibit):
    """Depth in metres; see `_DenseExhibit`."""

    data: DepthData

    name: ClassVar[str] = "depth"
    title: ClassVar[str] = "Depth"
    words: ClassVar[str] = "Depth, in the same colours throughout; grey is not measured."
    quick_head: ClassVar[Callable[[Tensor, Any, int], nn.Module]] = depth.quick_head

    def _judged(self, output: Tensor, truth: Tensor) -> tuple[Tensor, float]:
        found = upsampled(output, (truth.shape[0], truth.shape[1]))[0]
        errors = depth.depth_errors(found, truth)
        return found, errors["RMSE"] if errors else float("nan")

    def _note(self, score: float) -> str:
        return f"RMSE {score:.2f} m"

    def _painter(self, truths: Sequence[Tensor]) -> tuple[Paint, Scale | None]:
        return depth_painter(truths, self.data.low, self.data.high)


@dataclass(frozen=True)
class Normals(_DenseExhibit):
    """Surface normals; see `_DenseExhibit`."""

    data: NormalsData

    name: ClassVar[str] = "normals"
    title: ClassVar[str] = "Surface normals"
    words: ClassVar[str] = (
        "Which way surfaces face: the more to the right the redder, upwards the greener, to the camera the bluer; grey "
        "is not measured. Below: the mean angle to the truth."
    )
    quick_head: ClassVar[Callable[[Tensor, Any, int], nn.Module]] = normals.quick_head

    def _judged(self, output: Tensor, truth: Tensor) -> tuple[Tensor, float]:
        found = F.normalize(upsampled(output, (truth.shape[1], truth.shape[2])), dim=0)
        measured = (truth != 0).any(dim=0)
        return found, float(normals.angles_between(found[:, measured], truth[:, measured]).mean())

    def _note(self, score: float) -> str:
        return f"{score:.0f}° off"

    def _painter(self, truths: Sequence[Tensor]) -> tuple[Paint, Scale | None]:
        return paint_normals, None
