"""How many bytes of pictures a training reads, and how many a cache of teacher features would hold."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from eyespot.data import DataConfig, PictureSource
from eyespot.data.sources.folders import FolderSource
from eyespot.data.sources.hub import HubSource, may_fetch
from eyespot.data.sources.opening import open_source
from eyespot.data.sources.shards import ShardSource
from eyespot.distill.cache import CacheConfig
from eyespot.distill.cache.codec import RowLayout

SAMPLE = 512
"""Pictures whose files are looked at per source."""


@dataclass(frozen=True)
class PictureCount:
    """The data as far as it is known.

    Attributes:
        count: different pictures; None if unknown.
        mean_bytes: of a picture's file; None if unknown.
        unknown: what could not be looked at, in words.
    """

    count: int | None
    mean_bytes: float | None
    unknown: tuple[str, ...] = ()


def count_pictures(data: DataConfig, count: int | None, mean_bytes: float | None) -> PictureCount:
    """Counts the pictures of local sources and measures a sample of their files.

    Args:
        data: the sources.
        count: what the user says instead.
        mean_bytes: what the user says instead.

    Raises:
        ValueError: a count or size that is not positive.
    """
    if (count is not None and count < 1) or (mean_bytes is not None and mean_bytes <= 0):
        raise ValueError("--pictures and --picture-bytes must be positive")
    if count is not None and mean_bytes is not None:
        return PictureCount(count, mean_bytes)
    sources: list[PictureSource] = []
    for spec in data.sources:
        try:
            if may_fetch(spec):
                raise FileNotFoundError(spec)
            sources.append(open_source(spec))
        except (OSError, ValueError):
            hint = "its pictures are neither counted nor measured; see --pictures and --picture-bytes"
            return PictureCount(count, mean_bytes, (f"{spec} is not on this machine: {hint}",))
    shares = data.weights or [float(len(source)) for source in sources]
    measured = sum(share * _mean_bytes(source) for share, source in zip(shares, sources, strict=True)) / sum(shares)
    return PictureCount(count or sum(len(source) for source in sources), mean_bytes or measured)


def _mean_bytes(source: PictureSource) -> float:
    """Mean bytes to read per picture: of a sample of files, of whole shards, none for pictures that are made."""
    numbers = range(0, len(source), max(1, len(source) // SAMPLE))
    if isinstance(source, HubSource):
        return sum(map(source.file_bytes, numbers)) / len(numbers)
    if isinstance(source, FolderSource):
        return sum(os.stat(source.picture_name(number)).st_size for number in numbers) / len(numbers)
    if isinstance(source, ShardSource):
        return sum(path.stat().st_size for path in map(Path, source.paths)) / len(source)
    return 0.0


@dataclass(frozen=True)
class CachePlan:
    """A cache of a stage's teacher features.

    Attributes:
        views: per picture.
        row_bytes: of one view, by teacher.
        rows: views of all pictures; None if it is unknown how many pictures there are.
    """

    views: int
    row_bytes: dict[str, int]
    rows: int | None

    @property
    def bytes(self) -> int | None:
        """All rows of all teachers."""
        return None if self.rows is None else self.rows * sum(self.row_bytes.values())


def plan_cache(
    shapes: Mapping[str, tuple[int, int, int, int]], config: CacheConfig, views: int | None, pictures: int | None
) -> CachePlan:
    """The size of a cache.

    Args:
        shapes: (C, D, rows, columns) of each teacher's features.
        config: how they are kept.
        views: per picture; None counts as one.
        pictures: how many; None if unknown.
    """
    row_bytes = {name: cache_row_bytes(shape, config) for name, shape in shapes.items()}
    each = views or 1
    return CachePlan(each, row_bytes, None if pictures is None else pictures * each)


def cache_row_bytes(shape: tuple[int, int, int, int], config: CacheConfig) -> int:
    """Bytes of one picture's features on disk, its row number and checksum included.

    Args:
        shape: (C, D, rows, columns).
        config: how they are kept.
    """
    summary, width, rows, columns = shape
    kept = min(width, config.rank or width)
    return RowLayout(config.store, summary, (kept, rows, columns)).record_bytes + 24
