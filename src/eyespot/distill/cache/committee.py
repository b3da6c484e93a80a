"""A committee that remembers: teacher features of every (picture, view) are computed once and read back afterwards.

It works because a view is a pure function of (seed, picture, view number): with a fixed number of views per picture,
the same features come up again in every epoch, every stage and every run over the same data.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eyespot.data.loading.batch import CachedRows, PictureBatch
from eyespot.distill.cache.config import CacheError, StoreKind
from eyespot.distill.cache.reader import ShardReader
from eyespot.distill.cache.rows import RowNumbers
from eyespot.distill.cache.store import TeacherCache
from eyespot.distill.committee import Committee
from eyespot.encoders import Encoder
from eyespot.encoders.identity import identity
from eyespot.features import Features
from eyespot.pictures import as_unit_floats


class CachedCommittee(nn.Module):
    """A `Committee` whose features are kept on disk, filled as training asks for them.

    Freshly computed features are rounded to what is stored before they are used, so a step gives the same result
    whether its features were computed or read. The teachers are no part of this module: they are not moved to the
    device before a row is missing, and so need no memory there once everything is stored.

    Args:
        committee: the teachers.
        folder: where the files go; one sub-folder per teacher.
        setting: everything else that the features depend on (data fingerprint, view settings, seed), JSON-able.
        source_lengths: pictures per data source, in order.
        views: views per picture.
        contents: int64 [pictures], what is in each picture of all sources (`HasContents.contents`): features of one
            that has changed are computed again. None stands for pictures that do not change.
        store: how numbers are kept, see `CacheConfig`.
        rank: principal components to keep of each patch; None keeps every channel.
        sample: gives batches for the principal components, the same in every process; None takes the first pictures
            that are computed.
        comparing: take rows that do not say what was in their pictures, to compare them; see `ShardReader`.

    Attributes:
        must_keep: raise a `CacheError` for features that cannot be written, rather than warn and go on.

    Raises:
        CacheMismatchError: the folder holds features of something else; shows every difference.
        CacheError: the folder cannot be read.
    """

    def __init__(
        self,
        committee: Committee,
        folder: str | Path,
        *,
        setting: dict[str, Any],
        source_lengths: Sequence[int],
        views: int,
        contents: np.ndarray | None = None,
        store: StoreKind = "bfloat16",
        rank: int | None = None,
        sample: Callable[[], Iterable[PictureBatch]] | None = None,
        comparing: bool = False,
    ) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.rows = RowNumbers(source_lengths, views)
        pictures = np.zeros(self.rows.count, np.int64) if contents is None else np.repeat(contents, views)
        self.caches = {
            name: TeacherCache(
                self.folder / name,
                {"teacher": teacher_identity(teacher), **setting, "views": views, "max_grid": committee.max_grid},
                pictures,
                teacher.name,
                store,
                rank,
                comparing,
            )
            for name, teacher in committee.items()
        }
        self._committee = (committee,)  # in a tuple, so that torch does not take it for a part of this module
        self._sample = sample
        self.must_keep = False

    @property
    def committee(self) -> Committee:
        """The teachers."""
        return self._committee[0]

    @property
    def extra_entries(self) -> StoredRows:
        """For `PictureLoader.extra_entries`: reads rows where pictures are made, while the step before is computed."""
        return StoredRows(self.rows, {name: cache.reader for name, cache in self.caches.items()})

    def items(self) -> Iterable[tuple[str, Encoder]]:
        """(name, teacher) pairs."""
        return self.committee.items()

    @torch.no_grad()
    def forward(self, batch: PictureBatch, size: int | None = None) -> dict[str, Features]:
        """Features of every teacher in float32 on the pictures' device, see `Committee.forward`.

        Args:
            batch: `images`, and on the host `source`, `index` and `view` int64 [B]; with what `extra_entries` gives,
                nothing that is stored has to be read here.
            size: None; the cache holds one size.

        Raises:
            ValueError: a size other than the teachers' default was asked for, or a teacher gives features that cannot
                be stored.
        """
        if size is not None:
            raise ValueError("the teacher cache holds features at the teachers' default size; set no teacher_sizes")
        rows = self.rows_of(batch)
        device = batch["images"].device
        seen = {}
        for name, cache in self.caches.items():
            records = self._records(name, cache, batch, rows)
            seen[name] = cache.known_codec().decode(records.to(device, non_blocking=True))
        return seen

    def flush(self) -> None:
        """Writes what waits to be written. What cannot be written is named in a warning and computed again later."""
        for cache in self.caches.values():
            self._written(cache.flush)

    def rows_of(self, batch: PictureBatch) -> np.ndarray:
        """Row numbers int64 [B] of a batch."""
        return self.rows(*(batch[key].cpu().numpy() for key in ("source", "index", "view")))

    def look(self, name: str, images: Tensor) -> Features:
        """Features of pictures uint8 or in [0, 1], from a teacher itself, on their device."""
        teacher = self.committee.teachers[name]
        assert isinstance(teacher, Encoder)
        if teacher.device != images.device:
            teacher.to(images.device)
        return self.committee.look(teacher, as_unit_floats(images))

    def _written(self, write: Callable[[], None]) -> None:
        """A full disk does not end a training: it needs the teachers' features, not that they are kept."""
        try:
            write()
        except CacheError as error:
            if self.must_keep:
                raise
            warnings.warn(f"{error}. Training goes on without keeping them.", RuntimeWarning, stacklevel=3)

    def _records(self, name: str, cache: TeacherCache, batch: PictureBatch, rows: np.ndarray) -> Tensor:
        """uint8 [B, record_bytes] of all rows, read or computed."""
        self._written(cache.flush_if_due)
        stored = batch.get("cache", {}).get(name)
        if stored is not None:
            records, there = stored["records"], stored["there"].cpu().numpy()
        else:
            records, there = cache.read(rows)
        if there.all():
            return records
        lacking = np.flatnonzero(~there)
        wanted, first, place = np.unique(rows[lacking], return_index=True, return_inverse=True)
        found, known = cache.read(wanted)  # once more, since a data worker may have looked some time ago
        new = ~known
        if new.any():
            fresh = self._computed(name, cache, batch["images"], lacking[first[new]])
            if not known.any():
                found = fresh
            else:
                found[torch.from_numpy(new)] = fresh
            self._written(lambda: cache.keep(wanted[new], fresh))
        if len(lacking) == len(rows):
            return found[torch.from_numpy(place)]
        records[torch.from_numpy(lacking)] = found[torch.from_numpy(place)]
        return records

    def _computed(self, name: str, cache: TeacherCache, images: Tensor, places: np.ndarray) -> Tensor:
        """Records uint8 [n, record_bytes] on the host of the pictures at `places` in a batch, from the teacher."""
        features = self.look(name, images[torch.from_numpy(places).to(images.device)])
        codec = cache.codec_for(features, lambda: self._patches(name, images.device, features))
        return codec.encode(features).cpu()

    def _patches(self, name: str, device: torch.device, otherwise: Features) -> Iterable[Tensor]:
        """Patch maps to find principal components in."""
        if self._sample is None:
            return [otherwise.patches]
        return (self.look(name, batch["images"].to(device)).patches for batch in self._sample())


class StoredRows:
    """What is stored of a batch's rows, as the entry `cache` of that batch; for `PictureLoader.extra_entries`.

    Records come as they are stored, to be decoded on the training device. Teachers of whom nothing is stored yet are
    left out.
    """

    def __init__(self, rows: RowNumbers, readers: Mapping[str, ShardReader]) -> None:
        self._rows = rows
        self._readers = dict(readers)

    def __call__(self, source: Tensor, index: Tensor, view: Tensor) -> dict[str, dict[str, CachedRows]]:
        """The entry for pictures `index` of `source` under `view`, int64 [B] each."""
        rows = self._rows(source.numpy(), index.numpy(), view.numpy())
        found: dict[str, CachedRows] = {}
        for name, reader in self._readers.items():
            records, there = reader.read(rows)
            if reader.record_bytes:
                found[name] = {"records": records, "there": torch.from_numpy(there)}
        return {"cache": found}


def teacher_identity(teacher: Encoder) -> dict[str, str]:
    """Name and weights of a teacher; of a file, its name without the folder, so that it may be moved."""
    known = identity(teacher)
    if teacher.files:
        path, mark, options = known["model"].partition("?")
        known["model"] = f"{path.partition('/')[0]}/{Path(path).name}{mark}{options}"
    return known
