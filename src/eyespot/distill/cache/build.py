"""Filling a cache before training, in one process or in many."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from lightning_fabric import Fabric

from eyespot.data.loading.batch import PictureBatch
from eyespot.data.loading.pictures import PictureLoader
from eyespot.data.loading.sampling import Draws
from eyespot.distill.cache.committee import CachedCommittee


class RowLoader(PictureLoader):
    """The pictures and views of given rows, batch by batch in their order.

    Args:
        loader: over the same data.
        committee: whose rows they are.
        rows: int64 [n].
        batch_size: pictures per batch; the last one may be smaller.
    """

    def __init__(self, loader: PictureLoader, committee: CachedCommittee, rows: np.ndarray, batch_size: int) -> None:
        super().__init__(loader.config, batch_size, sources=loader.sources)
        self._given = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
        self._numbers = committee.rows

    def __iter__(self) -> Iterator[PictureBatch]:
        return islice(self.batches(), len(self._given))

    def _draws(self, step: int) -> Draws:
        # Workers read ahead of what is asked for.
        return self._numbers.draws(self._given[min(step, len(self._given) - 1)], step)


def first_batches(loader: PictureLoader, pictures: int = 256, batch_size: int = 32) -> Iterator[PictureBatch]:
    """The first pictures of a training, the same in every process: what principal components are found in."""
    whole = PictureLoader(loader.config, batch_size, sources=loader.sources)
    return (whole.batch(step) for step in range(pictures // batch_size))


@dataclass(frozen=True)
class Built:
    """What a build did.

    Attributes:
        rows: how many rows were its part.
        computed: how many of them were not there.
        unreadable: why, by name, of pictures that cannot be read; they have no rows, and training leaves them out too.
    """

    rows: int
    computed: int
    unreadable: dict[str, str]


def build_cache(
    committee: CachedCommittee,
    loader: PictureLoader,
    fabric: Fabric,
    *,
    batch_size: int = 32,
    part: int = 0,
    parts: int = 1,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Built:
    """Computes every row that is not there yet, of one of `parts` equal parts of all rows.

    Any number of processes and machines may each build another part in the same folder. A build that was killed goes
    on where it stood, but for at most a minute's or a shard's work.

    Args:
        committee: the cache.
        loader: its data; `config.workers` read the pictures.
        fabric: device and precision for the teachers, as in training.
        batch_size: pictures that the teachers look at together.
        part: number of this part, from 0.
        parts: how many there are.
        progress: told (rows done, rows to do) after each batch.

    Raises:
        CacheError: it cannot be written; what was written before stays.
    """
    rows = part_of(committee.rows.count, part, parts)
    todo = rows[~there_in_all(committee, rows)]
    chosen = RowLoader(loader, committee, todo, batch_size)
    committee.must_keep = True
    done = 0
    try:
        for batch in chosen:
            with fabric.autocast():
                committee({**batch, "images": batch["images"].to(fabric.device, non_blocking=True)})
            done += len(batch["images"])
            progress(done, len(todo))
    finally:
        committee.flush()
    return Built(len(rows), len(todo), chosen.failures)


def part_of(rows: int, part: int, parts: int) -> np.ndarray:
    """The rows int64 [n] of one of several nearly equal parts."""
    if not 0 <= part < parts:
        raise ValueError(f"there are {parts} parts, counted from 0; {part} is none of them")
    return np.arange(rows * part // parts, rows * (part + 1) // parts)


def there_in_all(committee: CachedCommittee, rows: np.ndarray) -> np.ndarray:
    """[n] bool: which of the rows int64 [n] every teacher has."""
    return np.logical_and.reduce([cache.reader.has(rows) for cache in committee.caches.values()])
