"""What filling a cache will take, before it is done."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from lightning_fabric import Fabric

from eyespot.data.loading.pictures import PictureLoader
from eyespot.distill.cache.build import part_of
from eyespot.distill.cache.committee import CachedCommittee

ROW_BYTES = 24
"""Of a row's number and checksum, beside its record."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class TeacherEstimate:
    """One teacher's share: bytes per row as stored, seconds per picture, rows of the part that are not there."""

    record_bytes: int
    seconds: float
    missing: int

    @property
    def bytes(self) -> int:
        """Of the missing rows on disk."""
        return self.missing * (self.record_bytes + ROW_BYTES)


@dataclass(frozen=True)
class Estimate:
    """What filling a cache will take.

    Attributes:
        rows: of this part.
        teachers: by name.
        picture_seconds: to read a picture and make its view, in one process.
        workers: processes that do so.
        free: bytes left on the disk.
    """

    rows: int
    teachers: dict[str, TeacherEstimate]
    picture_seconds: float
    workers: int
    free: int

    @property
    def bytes(self) -> int:
        """Of all missing rows on disk."""
        return sum(teacher.bytes for teacher in self.teachers.values())

    @property
    def seconds(self) -> float:
        """Time on this machine: with data workers the slower of reading and looking, without them their sum."""
        looking = sum(teacher.missing * teacher.seconds for teacher in self.teachers.values())
        reading = max(teacher.missing for teacher in self.teachers.values()) * self.picture_seconds
        return max(looking, reading / self.workers) if self.workers else looking + reading


def estimate(
    committee: CachedCommittee,
    loader: PictureLoader,
    fabric: Fabric,
    *,
    part: int = 0,
    parts: int = 1,
    batches: int = 3,
) -> Estimate:
    """Measures a few batches and scales them up; writes nothing.

    Args:
        committee: the cache.
        loader: its data.
        fabric: device and precision for the teachers.
        part: number of the part that is asked about, from 0.
        parts: how many there are.
        batches: how many to measure, after one to warm up.
    """
    rows = part_of(committee.rows.count, part, parts)
    steps = itertools.count()
    picture_seconds, images = _timed(lambda: loader.batch(next(steps))["images"], batches, fabric)
    images = images.to(fabric.device)
    teachers = {}
    for name, cache in committee.caches.items():
        with torch.no_grad(), fabric.autocast():
            seconds, features = _timed(partial(committee.look, name, images), batches, fabric)
        missing = int((~cache.reader.has(rows)).sum())
        size = cache.layout_of(features).record_bytes
        teachers[name] = TeacherEstimate(size, seconds / len(images), missing)
    return Estimate(len(rows), teachers, picture_seconds / len(images), loader.config.workers, _free(committee.folder))


def _timed(work: Callable[[], Value], times: int, fabric: Fabric) -> tuple[float, Value]:
    """Seconds per call over `times` calls after one to warm up, and what the last one gave."""
    result = work()
    _wait(fabric)
    start = time.perf_counter()
    for _ in range(times):
        result = work()
    _wait(fabric)
    return (time.perf_counter() - start) / times, result


def _wait(fabric: Fabric) -> None:
    if fabric.device.type == "cuda":
        torch.cuda.synchronize(fabric.device)


def _free(folder: Path) -> int:
    """Bytes left where a folder is or will be."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free
