"""Checking what is in a cache: every checksum, and rows drawn at random against the teachers themselves."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from eyespot.data.loading.batch import PictureBatch
from eyespot.data.loading.pictures import PictureLoader
from eyespot.distill.cache.build import RowLoader, there_in_all
from eyespot.distill.cache.committee import CachedCommittee
from eyespot.distill.cache.config import CacheError
from eyespot.features import Features
from eyespot.randomness import numpy_generator

TOLERANCE = 0.02
"""Largest relative difference of a recomputed row, in the L2 norm over its summary or its patches: bfloat16 rounds by
up to 0.004, and a teacher's last digits depend on its device and on the batch around a picture. Features of another
view of the same picture differ by far more."""


@dataclass
class Verification:
    """What was found.

    Attributes:
        stored: rows that every teacher has.
        shards: shards whose checksums hold.
        compared: rows computed again, of every teacher.
        features: how many that gave, of all teachers together.
        identical: how many of these are equal to the bit.
        largest: the largest relative difference of any.
        removed: damaged shards, "path: reason" each; they were removed and can be built again.
        different: rows beyond `TOLERANCE`, "teacher, picture, view: difference" each.
    """

    stored: int = 0
    shards: int = 0
    compared: int = 0
    features: int = 0
    identical: int = 0
    largest: float = 0.0
    removed: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing was wrong."""
        return not self.removed and not self.different


def verify(
    committee: CachedCommittee,
    loader: PictureLoader,
    fabric: Fabric,
    count: int,
    *,
    batch_size: int = 32,
    seed: int = 0,
) -> Verification:
    """Reads all that is stored once, then computes some rows again.

    If they agree, rows of an earlier version, which did not note what was in the pictures, are taken over.

    Args:
        committee: the cache.
        loader: its data.
        fabric: device and precision for the teachers, as they were for what is stored.
        count: how many rows to compute again.
        batch_size: pictures that the teachers look at together.
        seed: names the draw of the rows.

    Raises:
        CacheError: nothing is stored.
    """
    found = Verification()
    for cache in committee.caches.values():
        cache.reader.check_all()
        found.removed += cache.reader.removed
        found.shards += cache.reader.shards
    stored = np.flatnonzero(there_in_all(committee, np.arange(committee.rows.count)))
    found.stored = len(stored)
    if not found.removed and not len(stored):
        raise CacheError(f"nothing is stored in {committee.folder} for all teachers; build the cache first")
    chosen = numpy_generator(seed, "verify").permutation(stored)[:count]
    for batch in RowLoader(loader, committee, np.sort(chosen), batch_size):
        rows = committee.rows_of(batch)
        names = [f"{loader.sources[s].picture_name(i)}, view {v}" for s, i, v in _ids(batch)]
        for teacher in committee.caches:
            with torch.no_grad(), fabric.autocast():
                _compare(found, committee, teacher, rows, names, batch["images"].to(fabric.device))
        found.compared += len(rows)
    if found.ok:
        for cache in committee.caches.values():
            cache.reader.take_over()
    return found


def _ids(batch: PictureBatch) -> list[tuple[int, int, int]]:
    return list(zip(*(batch["source"].tolist(), batch["index"].tolist(), batch["view"].tolist()), strict=True))


def _compare(
    found: Verification, committee: CachedCommittee, teacher: str, rows: np.ndarray, names: list[str], images: Tensor
) -> None:
    cache = committee.caches[teacher]
    assert cache.codec is not None
    records, _ = cache.read(rows)
    again = cache.codec.encode(committee.look(teacher, images)).cpu()
    found.features += len(rows)
    found.identical += int((records == again).all(1).sum())
    differences = _relative(cache.codec.decode(again), cache.codec.decode(records))
    for name, difference in zip(names, differences.tolist(), strict=True):
        found.largest = max(found.largest, difference)
        if not difference <= TOLERANCE:
            found.different.append(f"{teacher}, {name}: {difference:.3g}")


def _relative(one: Features, other: Features) -> Tensor:
    """[B]: the larger of the relative differences of summary and patches."""
    pairs = ((one.summary, other.summary), (one.patches.flatten(1), other.patches.flatten(1)))
    parts = [(a - b).norm(dim=1) / b.norm(dim=1).clamp(min=torch.finfo(torch.float32).tiny) for a, b in pairs]
    return torch.stack(parts).amax(0)
