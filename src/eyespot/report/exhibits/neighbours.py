"""Nearest neighbours: a picture and the training pictures whose summaries are most like its own, for each encoder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from eyespot.data.labelled.base import ClassificationData, LabelledPictures
from eyespot.data.loading.sampling import spread
from eyespot.evaluate.extraction import FeatureBank
from eyespot.evaluate.protocols.knn import nearest
from eyespot.report.exhibits.figures import AnyFigure, PictureStrips, Strip, StripGroup, as_bytes
from eyespot.report.exhibits.gallery import Findings

_SIDE = 128  # pixels of a picture in a strip


@dataclass(frozen=True)
class Neighbours:
    """Strips of nearest neighbours by cosine similarity of summaries.

    Attributes:
        data: queries come from its validation split, neighbours from its training split.
        queries: how many, spread evenly over the split.
        k: neighbours per query.
    """

    data: ClassificationData
    queries: int = 4
    k: int = 5

    name: ClassVar[str] = "neighbours"
    setting: ClassVar[None] = None

    def look(self, bank: FeatureBank) -> list[Tensor]:
        """Indices of training pictures, int64 [queries, k]."""
        known = (self.data.train.labels >= 0).nonzero()[:, 0]
        train = bank.summaries(self.data.train.pictures)[known]
        asked = bank.summaries(self.data.val.pictures)[self._chosen]
        return [known[nearest(train, asked, self.k)[1]]]

    def draw(self, findings: Findings) -> list[AnyFigure]:
        """One group of strips per query."""
        groups = [self._group(number, index, findings) for number, index in enumerate(self._chosen.tolist())]
        if not groups:
            return []
        caption = (
            f"Pictures of the validation split and the {self.k} training pictures whose summaries are most similar "
            "(cosine), the most similar first. A tick marks the class of the query, a cross another one."
        )
        return [PictureStrips("Nearest neighbours", caption, groups)]

    @cached_property
    def _chosen(self) -> Tensor:
        labelled = (self.data.val.labels >= 0).nonzero()[:, 0]
        return labelled[torch.tensor(spread(len(labelled), self.queries), dtype=torch.int64)]

    def _group(self, number: int, index: int, findings: Findings) -> StripGroup:
        label = int(self.data.val.labels[index])
        strips = [self._strip(model, found[0][number], label) for model, found in findings.items()]
        return StripGroup(self.data.classes[label].replace("_", " "), strips, _picture(self.data.val, index))

    def _strip(self, model: str, found: Tensor, label: int) -> Strip:
        labels = self.data.train.labels[found].tolist()
        right = [one == label for one in labels]
        pictures = [_picture(self.data.train, index) for index in found.tolist()]
        alts = [
            f"neighbour {place} for {model}: {self.data.classes[one]}, {'the same' if hit else 'another'} class"
            for place, (one, hit) in enumerate(zip(labels, right, strict=True), 1)
        ]
        return Strip(model, pictures, alts, right, f"{sum(right)} of {len(right)} of its class")


def _picture(split: LabelledPictures, index: int) -> Tensor:
    return as_bytes(split.pictures.read(index, index + 1, (_SIDE, _SIDE))[0])
