"""Sampling: which pictures make step s, as a pure function of (seed, step).

Several sources are mixed by weights. Within a source pictures come in random permutations, one per epoch of that
source, so none repeats before all were seen. Nothing is remembered between steps: any step can be asked for, in any
order, in any process.

The paper (EUPE, A.6 of our notes) takes 10 % ImageNet-1k, as DINOv3 does: a share of *batches*. That is two sources
with weights 0.9 and 0.1 and `batches="homogeneous"`. How the shares are drawn is ours: in blocks, each of which holds
every source as often as its weight says (to within one), in random order. So shares are exact over a run, and the
position in every source follows from the step alone.

With repeated augmentation (Hoffer et al., arXiv 1901.09335; Berman et al., arXiv 1902.05509) every picture drawn comes
several times in a row, each time as another view, so a batch of B has B / repeats different pictures. timm's sampler
begins a new permutation whenever as many views were drawn as there are pictures; ours goes on to its end (ours), so
that no picture is drawn twice before all were drawn once.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from eyespot.data.loading.config import BatchComposition
from eyespot.randomness import numpy_generator

_SMALLEST_BLOCK = 1024
_RAREST = 2**20
_ONE = 2**40  # shares are whole numbers of this, so that counting is exact however long the run


@dataclass(frozen=True)
class Draws:
    """Which pictures make one step.

    Attributes:
        step: its number.
        source: int64 [B], numbers of the sources.
        index: int64 [B], numbers of the pictures in their sources.
        view: int64 [B], numbers of the views of these pictures: the source's epoch (times `repeats`, plus the number of
            the repeat), or that modulo `views`.
    """

    step: int
    source: np.ndarray
    index: np.ndarray
    view: np.ndarray

    def __getitem__(self, which: slice | np.ndarray) -> Draws:
        """Some of the pictures."""
        return Draws(self.step, self.source[which], self.index[which], self.view[which])


@dataclass(frozen=True)
class PairedPart:
    """The part of a batch that one rank gets if pictures i and B - 1 - i shall meet: pair by pair, each whole or cut.

    Attributes:
        own: int64 [b], places in the batch, rising.
        partner: int64 [b], where among `own` and `guests` the mirror image of each place is.
        guests: int64 [g], places of other ranks that mirror some of `own`: one if b is odd, else none.
    """

    own: np.ndarray
    partner: np.ndarray
    guests: np.ndarray

    @classmethod
    def of(cls, batch_size: int, rank: int, world_size: int) -> PairedPart:
        """The `rank`-th of `world_size` equal parts of a batch."""
        place = np.arange(batch_size)
        pairs = np.stack([place, batch_size - 1 - place], 1).ravel()[:batch_size]  # 0, B - 1, 1, B - 2, ...
        own = np.sort(np.split(pairs, world_size)[rank])
        mirrored = batch_size - 1 - own
        guests = np.setdiff1d(mirrored, own)
        known = {place: number for number, place in enumerate([*own.tolist(), *guests.tolist()])}
        return cls(own, np.array([known[place] for place in mirrored.tolist()]), guests)


class SamplingPlan:
    """The pictures of every step.

    Args:
        sizes: number of pictures of each source.
        batch_size: pictures per step, over all ranks.
        weights: how often each source is drawn, relative to the others; proportional to the sizes by default, so that
            every picture is seen equally often.
        batches: "mixed" draws the source of each picture, "homogeneous" that of each batch.
        views: how many different views a picture has, None for a new one every epoch.
        repeats: how often a picture comes in a row, each time as another view. A batch has first the first views of its
            pictures, then the second ones, and so on, so that parts of it (of a process, a micro-batch) have as many
            different pictures as can be. Where they do not divide the batch, a picture's last views come in the next.
        seed: another seed, another order.

    Raises:
        ValueError: an argument makes no sense; the message says what would.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        batch_size: int,
        weights: Sequence[float] | None = None,
        batches: BatchComposition = "mixed",
        views: int | None = None,
        seed: int = 0,
        repeats: int = 1,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if not sizes or min(sizes) < 1:
            raise ValueError(f"every source needs at least one picture; their sizes are {list(sizes)}")
        if repeats < 1:
            raise ValueError(f"repeats must be at least 1, not {repeats}")
        if views is not None and views < repeats:
            raise ValueError(f"{repeats} repeats of a picture need as many views, not {views}; raise views or unset it")
        self.sizes = list(sizes)
        self.batch_size = batch_size
        self.batches = batches
        self.views = views
        self.repeats = repeats
        self.seed = seed
        self._bounds = _share_bounds(self.sizes if weights is None else weights, len(sizes))
        rarest = min(after - before for before, after in itertools.pairwise(self._bounds))
        self._block_size = max(_SMALLEST_BLOCK, -(-_ONE // rarest))
        self._block = lru_cache(2)(self._make_block)
        self._order = lru_cache(2 * len(sizes))(self._make_order)

    def step(self, step: int) -> Draws:
        """The draws of the global batch of step `step`, counted from 0."""
        if step < 0:
            raise ValueError(f"steps are counted from 0, not {step}")
        if self.batches == "homogeneous":
            source, batch = self._units(step, 1)
            slot = batch[0] * self.batch_size + np.arange(self.batch_size)
            source, position = np.repeat(source, self.batch_size), slot // self.repeats
        else:
            slot = step * self.batch_size + np.arange(self.batch_size)
            picture = slot // self.repeats
            source, position = self._units(int(picture[0]), int(picture[-1] - picture[0]) + 1)
            source, position = source[picture - picture[0]], position[picture - picture[0]]
        index, epoch = np.empty_like(position), np.empty_like(position)
        for number in np.unique(source):
            here = source == number
            index[here], epoch[here] = self._pictures(int(number), position[here])
        repeat = slot % self.repeats
        view = epoch * self.repeats + repeat
        if self.views is not None:
            view %= self.views
        order = np.argsort(repeat, kind="stable")
        return Draws(step, source[order], index[order], view[order])

    def _units(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Source, and number of earlier units of that source, of `count` units (pictures or batches) from `first`."""
        parts = []
        while count > 0:
            block, offset = divmod(first, self._block_size)
            source, position = self._block(block)
            parts.append((source[offset : offset + count], position[offset : offset + count]))
            taken = len(parts[-1][0])
            first, count = first + taken, count - taken
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def _make_block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        before, after = self._drawn(block * self._block_size), self._drawn((block + 1) * self._block_size)
        counts = [end - start for start, end in zip(before, after, strict=True)]
        source = np.repeat(np.arange(len(counts)), counts)
        position = np.concatenate([np.arange(start, end) for start, end in zip(before, after, strict=True)])
        order = numpy_generator(self.seed, "sources", block).permutation(self._block_size)
        shuffled = source[order]
        # Units of one source keep their order: the k-th of them in the block has the k-th position.
        shuffled_position = np.empty_like(position)
        shuffled_position[np.argsort(shuffled, kind="stable")] = position
        return shuffled, shuffled_position

    def _drawn(self, units: int) -> list[int]:
        """How often each source is drawn in the first `units` units, `units` being a whole number of blocks."""
        ends = [(units * bound + _ONE // 2) // _ONE for bound in self._bounds]
        return [after - before for before, after in itertools.pairwise(ends)]

    def _pictures(self, source: int, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        epoch, offset = np.divmod(position, self.sizes[source])
        index = np.empty_like(position)
        for number in np.unique(epoch):
            here = epoch == number
            index[here] = self._order(source, int(number))[offset[here]]
        return index, epoch

    def _make_order(self, source: int, epoch: int) -> np.ndarray:
        return numpy_generator(self.seed, "order", source, epoch).permutation(self.sizes[source])


def _share_bounds(weights: Sequence[float], sources: int) -> list[int]:
    """Where each source's share of `_ONE` begins, and where the last one ends."""
    if len(weights) != sources:
        raise ValueError(f"{len(weights)} weights for {sources} sources; give one weight per source")
    total = sum(weights)
    if min(weights) <= 0 or not np.isfinite(total):
        raise ValueError(f"weights must be positive numbers, not {list(weights)}; leave out a source you do not want")
    if min(weights) / total < 1 / _RAREST:
        raise ValueError(f"weights {list(weights)} draw a source less than once in a million; give it a larger weight")
    ends = [0.0, *np.cumsum([weight / total for weight in weights])]
    return [*(round(end * _ONE) for end in ends[:-1]), _ONE]


def spread(count: int, limit: int | None) -> list[int]:
    """At most `limit` of `count` indices, evenly spread over the whole range."""
    if limit is None or limit >= count:
        return list(range(count))
    if limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    return [index * count // limit for index in range(limit)]
