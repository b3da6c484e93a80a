"""The loader of pictures: which ones are seen and how, in batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Annotated, Any, Self, TypedDict

import torch
from PIL import Image
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass as validated_dataclass
from torch import Tensor

from eyespot.data.loading.batch_loader import (
    BatchLoader,
    BatchReader,
    BrokenSourceError,
)
from eyespot.data.loading.sampling import BatchComposition, Draws, SamplingPlan
from eyespot.data.sources.base import PictureSource
from eyespot.data.sources.opening import open_source
from eyespot.data.views.draw import ViewConfig, apply_view, draw_view

Companion = Callable[[Tensor, Tensor, Tensor], Mapping[str, Any]]
"""(source, index, view), int64 [b] each: the pictures of a batch and their views -> further entries of that batch."""


class Batch(TypedDict):
    """The pictures of one step on one rank; b is the number of pictures per rank, S the side of a view."""

    step: int
    images: Tensor
    """uint8 [b, 3, S, S], RGB."""
    labels: Tensor
    """int64 [b], the label within the picture's source, -1 for none."""
    source: Tensor
    """int64 [b], number of the source."""
    index: Tensor
    """int64 [b], number of the picture in its source."""
    view: Tensor
    """int64 [b], number of the view."""
    failures: list[str]
    """"name: reason" of each broken picture that was replaced."""


@validated_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class DataConfig:
    """Which pictures are seen, and how."""

    sources: list[str] = field(default_factory=lambda: ["toybox"])
    """Folders, WebDataset shards (x.tar, x-*.tar, x-{000000..000009}.tar), Hugging Face data sets (datasets/NAME or
    datasets/FOLDER, with ?split=train&image=COLUMN&label=COLUMN) or toybox[:COUNT[@SIZE]]."""
    weights: list[float] | None = None
    """How often each source is drawn, relative to the others; by default every picture equally often."""
    batches: BatchComposition = "mixed"
    """Whether each picture's source is drawn (mixed) or each batch's (homogeneous)."""
    view: ViewConfig = field(default_factory=ViewConfig)
    """Crops and colours."""
    size: Annotated[int, Field(ge=1)] = 224
    """Side of the square views in pixels."""
    views: Annotated[int, Field(ge=1)] | None = None
    """Different views per picture, which then repeat; by default a new one every epoch."""
    repeats: Annotated[int, Field(ge=1)] = 1
    """Repeated augmentation: how often a picture comes in a row, each time as another view (3 in timm's recipes). A
    step keeps its number of views, so a batch has a third of the pictures then."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that read pictures; 0 reads them in the training process."""
    seed: int = 0
    """Seed of the order and of the views."""
    enough_side: Annotated[int, Field(ge=1)] | None = None
    """Larger pictures are shrunk on reading, by whole factors, as far as their longer side keeps so many pixels; by
    default four times the size of a view."""
    keep_decoded: bool = False
    """Keep every decoded picture in memory (in each worker), for small sets."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.sources:
            raise ValueError("sources is empty; give a folder, WebDataset shards or toybox")
        if self.weights is not None and len(self.weights) != len(self.sources):
            raise ValueError(f"{len(self.weights)} weights for {len(self.sources)} sources; give one per source")
        if self.views is not None and self.views < self.repeats:
            raise ValueError(f"repeats {self.repeats} needs as many views; raise views ({self.views}) or unset it")
        return self


def plain_list_of_sources(value: Any) -> Any:
    """A list of sources as the settings of a `DataConfig` that names them; for validators of configurations."""
    return {"sources": value} if isinstance(value, list) else value


class PictureLoader(BatchLoader[Batch]):
    """Batches of pictures for learning without labels of every pixel; see `BatchLoader`.

    Args:
        config: which pictures, and how they are seen.
        batch_size: pictures per step over all ranks together; the batch of a step does not depend on `world_size`.
        rank: number of this process; it gets the `rank`-th of `world_size` equal slices of each batch.
        world_size: number of processes.
        sources: opened sources to use in place of `config.sources`.

    Attributes:
        sources: the opened sources.
        companion: gives more entries for each batch; set it before the first batch is asked for. Called where pictures
            are made, so its work overlaps with training if there are workers; it must be picklable.

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

    @property
    def companion(self) -> Companion | None:
        """See the class."""
        return self._pictures.companion

    @companion.setter
    def companion(self, companion: Companion | None) -> None:
        self._pictures.companion = companion


class _PictureReader(BatchReader):
    """Makes a `Batch`."""

    def __init__(self, sources: Sequence[PictureSource], config: DataConfig) -> None:
        super().__init__(sources, config.keep_decoded)
        self.pictures = sources
        self.config = config
        self.companion: Companion | None = None

    def __getitem__(self, draws: Draws) -> dict[str, Any] | BrokenSourceError:
        batch = super().__getitem__(draws)
        if self.companion is None or isinstance(batch, BrokenSourceError):
            return batch
        return {**batch, **self.companion(batch["source"], batch["index"], batch["view"])}

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
