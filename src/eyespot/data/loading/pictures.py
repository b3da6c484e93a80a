"""The loader of pictures: which ones are seen and how, in batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eyespot.data.loading.batch import PictureBatch
from eyespot.data.loading.batch_loader import (
    BatchLoader,
    BatchReader,
    BrokenSourceError,
)
from eyespot.data.loading.config import DataConfig
from eyespot.data.loading.sampling import Draws, PairedPart, SamplingPlan
from eyespot.data.sources.base import PictureSource
from eyespot.data.sources.opening import open_source
from eyespot.data.views.draw import apply_view, draw_view

ExtraEntries = Callable[[Tensor, Tensor, Tensor], Mapping[str, Any]]
"""(source, index, view), int64 [b] each: the pictures of a batch and their views -> further entries of that batch."""


class PictureLoader(BatchLoader[PictureBatch]):
    """Batches of pictures for learning without labels of every pixel; see `BatchLoader`.

    Args:
        config: which pictures, and how they are seen.
        batch_size: pictures per step over all ranks together; the batch of a step does not depend on `world_size`.
        rank: number of this process; it gets the `rank`-th of `world_size` equal slices of each batch.
        world_size: number of processes.
        sources: opened sources to use in place of `config.sources`.
        in_pairs: whether pictures i and B - 1 - i of the whole batch shall meet on a rank, for mixing: ranks then get
            pairs in place of slices, and a batch has `partner` and `guests`. No matter on one rank.

    Attributes:
        sources: the opened sources.
        extra_entries: gives more entries for each batch; set it before the first batch is asked for. Called where
            pictures are made, so its work overlaps with training if there are workers; it must be picklable.

    Raises:
        FileNotFoundError, ValueError: a source cannot be opened, or the numbers do not fit together.
    """

    def __init__(
        self,
        config: DataConfig,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        sources: Sequence[PictureSource] | None = None,
        in_pairs: bool = False,
    ) -> None:
        enough_side = config.enough_side or 4 * config.size
        self.config = config
        self.sources = [open_source(spec, enough_side) for spec in config.sources] if sources is None else list(sources)
        self._pictures = _PictureReader(self.sources, config)
        plan = SamplingPlan(
            [len(source) for source in self.sources],
            batch_size,
            config.weights,
            config.batches,
            config.views,
            config.seed,
            config.repeats,
        )
        super().__init__(self._pictures, plan, rank, world_size, config.workers)
        if in_pairs and world_size > 1:
            self._pictures.part = PairedPart.of(batch_size, rank, world_size)

    def _draws(self, step: int) -> Draws:
        part = self._pictures.part
        if part is None:
            return super()._draws(step)
        return self._plan.step(step)[np.concatenate([part.own, part.guests])]

    @property
    def extra_entries(self) -> ExtraEntries | None:
        """See the class."""
        return self._pictures.extra_entries

    @extra_entries.setter
    def extra_entries(self, extra_entries: ExtraEntries | None) -> None:
        self._pictures.extra_entries = extra_entries


class _PictureReader(BatchReader):
    """Makes a `PictureBatch`."""

    def __init__(self, sources: Sequence[PictureSource], config: DataConfig) -> None:
        super().__init__(sources, config.keep_decoded)
        self.pictures = sources
        self.config = config
        self.extra_entries: ExtraEntries | None = None
        self.part: PairedPart | None = None

    def __getitem__(self, draws: Draws) -> dict[str, Any] | BrokenSourceError:
        batch = super().__getitem__(draws)
        if isinstance(batch, BrokenSourceError):
            return batch
        if self.part is not None:
            batch = _guests_apart(batch, self.part)
        if self.extra_entries is None:
            return batch
        return {**batch, **self.extra_entries(batch["source"], batch["index"], batch["view"])}

    def read(self, source: int, index: int) -> tuple[Image.Image, int]:
        picture = self.pictures[source].read(index)
        label = self.pictures[source].label(index)
        return picture, -1 if label is None else label

    def seen(self, read: tuple[Image.Image, int], source: int, index: int, view: int) -> tuple[Tensor, int]:
        picture, label = read
        drawn = draw_view(self.config.view, picture.size, self.config.seed, source, index, view)
        return apply_view(picture, drawn, self.config.size), label

    def stacked(self, views: Sequence[tuple[Tensor, int]]) -> dict[str, Any]:
        images, labels = zip(*views, strict=True)
        return {"images": torch.stack(images), "labels": torch.tensor(labels)}


def _guests_apart(batch: dict[str, Any], part: PairedPart) -> dict[str, Any]:
    """The batch of `part.own`, given that of these and the guests."""
    count = len(part.own)
    own = {name: value[:count] if isinstance(value, Tensor) else value for name, value in batch.items()}
    own["partner"] = torch.from_numpy(part.partner)
    if len(part.guests):
        own["guests"] = {name: batch[name][count:] for name in ("images", "labels")}
    return own
