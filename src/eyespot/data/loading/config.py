"""What there is to decide about the pictures of a training."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from eyespot.config import STRICT
from eyespot.data.views.config import ViewConfig

BatchComposition = Literal["mixed", "homogeneous"]


@dataclass(frozen=True, config=STRICT)
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
