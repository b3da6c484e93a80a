"""The loader: batches of views, the same whatever the workers, the ranks and the step at which one starts."""

from __future__ import annotations

import itertools
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field
from typing import Annotated, Any, Self, TypedDict, cast

import torch
from PIL import Image
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass as validated_dataclass
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from eyespot.data.decode import PictureError
from eyespot.data.fingerprint import fingerprint_of
from eyespot.data.sampling import Batches, Draws, SamplingPlan
from eyespot.data.sources import PictureSource, open_source
from eyespot.data.views import ViewConfig, apply_view, draw_view

MOST_BROKEN_IN_A_ROW = 256
"""After so many broken pictures one after another a source counts as broken as a whole."""


Companion = Callable[[Tensor, Tensor, Tensor], Mapping[str, Any]]
"""(source, index, view), int64 [b] each: the pictures of a batch and their views -> further entries of that batch."""


class BrokenSourceError(ValueError):
    """A source without readable pictures."""


class DeadWorkerError(RuntimeError):
    """A process that read pictures has died."""


@contextmanager
def dead_workers_explained(workers: int) -> Iterator[None]:
    """Says what to do when a data worker has died.

    torch raises an error of its own then, from a signal handler: wherever the training process is at that moment.

    Raises:
        DeadWorkerError: in place of torch's error.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error) or isinstance(error, DeadWorkerError):
            raise
        raise DeadWorkerError(
            f"a data worker died, most often because memory ran out; try fewer than {workers} workers (workers=0 reads "
            f"in this process). The same command continues. Below it: {error}"
        ) from error


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
    batches: Batches = "mixed"
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


class PictureLoader:
    """Batches as a pure function of (seed, step).

    A broken picture is replaced by the next good one of its source, and reported in the batch and in `failures`.

    Args:
        config: which pictures, and how they are seen.
        batch_size: pictures per step over all ranks together; the batch of a step does not depend on `world_size`.
        rank: number of this process; it gets the `rank`-th of `world_size` equal slices of each batch.
        world_size: number of processes.
        sources: opened sources to use in place of `config.sources`.

    Attributes:
        sources: the opened sources.
        failures: reason by name of every broken picture met so far in the batches taken.
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
        if batch_size % world_size:
            raise ValueError(
                f"batch_size {batch_size} is the batch of all ranks together and cannot be divided among {world_size}; "
                f"take a multiple of {world_size}"
            )
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be between 0 and {world_size - 1}, not {rank}")
        enough_side = config.enough_side or 4 * config.size
        self.config = config
        self.sources = [open_source(spec, enough_side) for spec in config.sources] if sources is None else list(sources)
        self.failures: dict[str, str] = {}
        self._plan = SamplingPlan(
            [len(source) for source in self.sources],
            batch_size,
            config.weights,
            config.batches,
            config.views,
            config.seed,
            config.repeats,
        )
        share = batch_size // world_size
        self._slice = slice(rank * share, (rank + 1) * share)
        self._reader = _Reader(self.sources, config)

    @property
    def companion(self) -> Companion | None:
        """See the class."""
        return self._reader.companion

    @companion.setter
    def companion(self, companion: Companion | None) -> None:
        self._reader.companion = companion

    @property
    def picture_count(self) -> int:
        """Pictures in all sources together."""
        return sum(self._plan.sizes)

    @property
    def source_names(self) -> list[str]:
        """The names of the sources, by their number."""
        return [source.name for source in self.sources]

    def fingerprint(self) -> str:
        """A hash that tells whether these are the same data in the same order of sources."""
        return fingerprint_of(source.fingerprint() for source in self.sources)

    def batch(self, step: int) -> Batch:
        """The batch of one step, made in this process; the same as `batches` gives.

        Raises:
            BrokenSourceError: too many pictures of a source in a row are broken.
        """
        return self._take(self._reader[self._draws(step)])

    def batches(self, start_step: int = 0) -> Iterator[Batch]:
        """All batches from `start_step` on, without end; closing the iterator ends its workers.

        Raises:
            BrokenSourceError: too many pictures of a source in a row are broken.
            DeadWorkerError: a worker died.
        """
        made = iter(self._torch_loader(start_step))
        try:
            with dead_workers_explained(self.config.workers):
                while True:
                    yield self._take(next(made))
        except BaseException as error:
            # The traceback would keep torch's iterator, and with it the workers, alive.
            traceback.clear_frames(error.__traceback__)
            raise
        finally:
            del made

    def _torch_loader(self, start_step: int) -> DataLoader[Any]:
        return DataLoader(
            self._reader,
            batch_size=None,
            sampler=map(self._draws, itertools.count(start_step)),
            num_workers=self.config.workers,
            collate_fn=_as_it_is,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # otherwise a draw is taken from the global one
            worker_init_fn=_leave_interrupts_to_the_main_process,
        )

    def _draws(self, step: int) -> Draws:
        return self._plan.step(step)[self._slice]

    def _take(self, batch: Batch | BrokenSourceError) -> Batch:
        if isinstance(batch, BrokenSourceError):
            raise batch
        for failure in batch["failures"]:
            name, _, reason = failure.partition(": ")
            self.failures.setdefault(name, reason)
        return batch


class _Reader(Dataset):
    """Makes the batch of some draws; lives in the workers, without state but for the pictures it may keep."""

    def __init__(self, sources: Sequence[PictureSource], config: DataConfig) -> None:
        self.sources = sources
        self.config = config
        self.companion: Companion | None = None
        self._kept: dict[tuple[int, int], Image.Image] = {}

    def __getitem__(self, draws: Draws) -> Batch | BrokenSourceError:
        images, labels, indices = [], [], []
        failures: list[str] = []
        wishes = zip(draws.source.tolist(), draws.index.tolist(), draws.view.tolist(), strict=True)
        for source, wanted, view in wishes:
            try:
                index, picture, label = self._first_good(source, wanted, failures)
            except BrokenSourceError as error:
                # Returned, not raised: torch would hide it in a worker's traceback.
                return error
            drawn = draw_view(self.config.view, picture.size, self.config.seed, source, index, view)
            images.append(apply_view(picture, drawn, self.config.size))
            labels.append(-1 if label is None else label)
            indices.append(index)
        batch = Batch(
            step=draws.step,
            images=torch.stack(images),
            labels=torch.tensor(labels),
            source=torch.from_numpy(draws.source.copy()),
            index=torch.tensor(indices),
            view=torch.from_numpy(draws.view.copy()),
            failures=failures,
        )
        if self.companion is not None:
            more = self.companion(batch["source"], batch["index"], batch["view"])
            return cast(Batch, {**batch, **more})
        return batch

    def _first_good(self, number: int, wanted: int, failures: list[str]) -> tuple[int, Image.Image, int | None]:
        source = self.sources[number]
        tries = min(len(source), MOST_BROKEN_IN_A_ROW)
        for index in (at % len(source) for at in range(wanted, wanted + tries)):
            try:
                return index, self._picture(number, index), source.label(index)
            except PictureError as error:
                failures.append(str(error))
        raise BrokenSourceError(
            f"{tries} pictures of {source.name!r} in a row cannot be read ({len(source)} are there); "
            f"the last is {failures[-1]}"
        )

    def _picture(self, number: int, index: int) -> Image.Image:
        if not self.config.keep_decoded:
            return self.sources[number].read(index)
        key = (number, index)
        if key not in self._kept:
            self._kept[key] = self.sources[number].read(index)
        return self._kept[key]


def _as_it_is(batch: Any) -> Any:
    return batch


def _leave_interrupts_to_the_main_process(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
