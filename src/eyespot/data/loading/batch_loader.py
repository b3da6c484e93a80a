"""What all loaders share: batches that are the same whatever the workers, the ranks and the step one starts at."""

from __future__ import annotations

import itertools
import shutil
import signal
import traceback
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from eyespot.data.loading.sampling import Draws, SamplingPlan
from eyespot.data.sources.decode import PictureError
from eyespot.data.sources.fingerprint import fingerprint_of, full_fingerprint

MOST_BROKEN_IN_A_ROW = 256
"""After so many broken pictures one after another a source counts as broken as a whole."""

SECONDS_AFTER_SIGTERM = 60
"""So long a worker lives that was asked to end."""

SILENT_SECONDS = 900
"""So long a batch may take; then workers count as hanging."""

SHARED_MEMORY = Path("/dev/shm")
"""Where workers hand over their batches, on Linux. Containers give it 64 MB unless told otherwise."""

PLENTY = 1 << 30
"""Free bytes of it that are not looked at more closely."""

BATCHES_PER_WORKER = 3
"""Two that torch asks for ahead, and one that is taken."""

B = TypeVar("B", bound=Mapping[str, Any])


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
        if isinstance(error, DeadWorkerError) or not str(error).startswith(("DataLoader worker", "DataLoader timed")):
            raise
        if "timed out" in str(error):
            raise DeadWorkerError(
                f"no data worker has given a batch for {SILENT_SECONDS} s; try workers=0, which reads in this process "
                "and shows what hangs. The same command continues"
            ) from error
        raise DeadWorkerError(
            f"a data worker died, most often because memory ran out; try fewer than {workers} workers (workers=0 reads "
            f"in this process). The same command continues. Below it: {error}"
        ) from error


class Readable(Protocol):
    """What a loader reads: pictures by number, with whatever belongs to them."""

    @property
    def name(self) -> str:
        """What errors call it."""
        ...

    def __len__(self) -> int: ...

    def fingerprint(self) -> str:
        """Tells whether it is the same data."""
        ...


class BatchReader(Dataset, ABC):
    """Makes the batch of some draws; lives in the workers, without state but for the pictures it may keep.

    Args:
        sources: where pictures come from.
        keep: whether to keep every picture that was read in memory.
    """

    def __init__(self, sources: Sequence[Readable], keep: bool) -> None:
        self.sources = sources
        self._keep = keep
        self._kept: dict[tuple[int, int], Any] = {}

    @abstractmethod
    def read(self, source: int, index: int) -> Any:
        """A picture with what belongs to it.

        Raises:
            PictureError: it is broken.
        """

    @abstractmethod
    def seen(self, read: Any, source: int, index: int, view: int) -> Any:
        """What `read` gave, under one view."""

    @abstractmethod
    def stacked(self, views: Sequence[Any]) -> dict[str, Any]:
        """The entries of a batch that views make up."""

    def __getitem__(self, draws: Draws) -> dict[str, Any] | BrokenSourceError:
        views, indices = [], []
        failures: list[str] = []
        wishes = zip(draws.source.tolist(), draws.index.tolist(), draws.view.tolist(), strict=True)
        for source, wanted, view in wishes:
            try:
                index, read = self._first_good(source, wanted, failures)
            except BrokenSourceError as error:
                # Returned, not raised: torch would hide it in a worker's traceback.
                return error
            views.append(self.seen(read, source, index, view))
            indices.append(index)
        return {
            "step": draws.step,
            **self.stacked(views),
            "source": torch.from_numpy(draws.source.copy()),
            "index": torch.tensor(indices),
            "view": torch.from_numpy(draws.view.copy()),
            "failures": failures,
        }

    def _first_good(self, number: int, wanted: int, failures: list[str]) -> tuple[int, Any]:
        source = self.sources[number]
        tries = min(len(source), MOST_BROKEN_IN_A_ROW)
        for index in (at % len(source) for at in range(wanted, wanted + tries)):
            try:
                return index, self._read(number, index)
            except PictureError as error:
                failures.append(str(error))
        raise BrokenSourceError(
            f"{tries} pictures of {source.name!r} in a row cannot be read ({len(source)} are there); "
            f"the last is {failures[-1]}"
        )

    def _read(self, number: int, index: int) -> Any:
        if not self._keep:
            return self.read(number, index)
        key = (number, index)
        if key not in self._kept:
            self._kept[key] = self.read(number, index)
        return self._kept[key]


class BatchLoader(Generic[B]):
    """Batches as a pure function of (seed, step), whatever they hold.

    A broken picture is replaced by the next good one of its source, and reported in the batch and in `failures`.

    Args:
        reader: makes batches.
        plan: which pictures make which batch.
        rank: number of this process; it gets the `rank`-th of `world_size` equal slices of each batch.
        world_size: number of processes.
        workers: processes that read pictures; 0 reads them in this process.

    Attributes:
        config: a dataclass of all that makes the data what they are; each kind of loader has its own.
        failures: reason by name of every broken picture met so far in the batches taken.

    Raises:
        ValueError: the numbers do not fit together.
    """

    config: Any

    def __init__(self, reader: BatchReader, plan: SamplingPlan, rank: int, world_size: int, workers: int) -> None:
        if plan.batch_size % world_size:
            raise ValueError(
                f"batch_size {plan.batch_size} is the batch of all ranks together and cannot be divided among "
                f"{world_size}; take a multiple of {world_size}"
            )
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be between 0 and {world_size - 1}, not {rank}")
        share = plan.batch_size // world_size
        self.failures: dict[str, str] = {}
        self._reader = reader
        self._plan = plan
        self._slice = slice(rank * share, (rank + 1) * share)
        self._workers = workers

    @property
    def picture_count(self) -> int:
        """Pictures in all sources together."""
        return sum(self._plan.sizes)

    def fingerprint(self) -> str:
        """A hash that tells whether these are the same data in the same order of sources."""
        return fingerprint_of(source.fingerprint() for source in self._reader.sources)

    def full_fingerprint(self) -> str:
        """The same, down to what is in the pictures."""
        return fingerprint_of(full_fingerprint(source) for source in self._reader.sources)

    def batch(self, step: int) -> B:
        """The batch of one step, made in this process; the same as `batches` gives.

        Raises:
            BrokenSourceError: too many pictures of a source in a row are broken.
        """
        return self._take(self._reader[self._draws(step)])

    def batches(self, start_step: int = 0) -> Iterator[B]:
        """All batches from `start_step` on, without end; closing the iterator ends its workers.

        Raises:
            BrokenSourceError: too many pictures of a source in a row are broken.
            DeadWorkerError: a worker died.
        """
        made = iter(self._torch_loader(start_step))
        try:
            with dead_workers_explained(self._workers):
                while True:
                    yield self._take(next(made))
        except BaseException as error:
            # The traceback would keep torch's iterator, and with it the workers, alive.
            traceback.clear_frames(error.__traceback__)
            raise
        finally:
            del made

    def _torch_loader(self, start_step: int) -> DataLoader[Any]:
        workers = self._workers and self._workers_that_fit(start_step)
        return DataLoader(
            self._reader,
            batch_size=None,
            sampler=map(self._draws, itertools.count(start_step)),
            num_workers=workers,
            timeout=SILENT_SECONDS if workers else 0,
            collate_fn=_as_it_is,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # otherwise a draw is taken from the global one
            worker_init_fn=_leave_signals_to_the_main_process,
        )

    def _workers_that_fit(self, step: int) -> int:
        """How many workers the shared memory has room for: in a full one they would hang or die of SIGBUS."""
        free = _shared_memory()
        if free is None or free >= PLENTY:
            return self._workers
        batch = sum(value.nbytes for value in self.batch(step).values() if isinstance(value, torch.Tensor))
        fitting = min(self._workers, int(free // (BATCHES_PER_WORKER * max(1, batch))))
        if fitting < self._workers:
            warnings.warn(
                f"{SHARED_MEMORY} has {free / 2**20:.0f} MiB free, too little for {self._workers} workers with batches "
                f"of {batch / 2**20:.0f} MiB: taking {fitting}. Make it larger (docker run --shm-size=8g) or set "
                "--data.workers",
                stacklevel=2,
            )
        return fitting

    def _draws(self, step: int) -> Draws:
        return self._plan.step(step)[self._slice]

    def _take(self, batch: Any) -> B:
        if isinstance(batch, BrokenSourceError):
            raise batch
        for failure in batch["failures"]:
            name, _, reason = failure.partition(": ")
            self.failures.setdefault(name, reason)
        return batch


def _shared_memory() -> int | None:
    """Free bytes of the shared memory; None where there is no such thing."""
    return shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else None


def _as_it_is(batch: Any) -> Any:
    return batch


def _leave_signals_to_the_main_process(worker: int) -> None:
    """`timeout`, systemd and SLURM send SIGTERM to a whole group; the main process still wants the batch in progress.

    A worker that nobody ends then ends itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(SECONDS_AFTER_SIGTERM))
