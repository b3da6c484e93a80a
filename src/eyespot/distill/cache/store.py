"""The stored features of one teacher: what they depend on, how they look on disk, and rows waiting to be written."""

from __future__ import annotations

import json
import os
import secrets
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from eyespot.distill.cache.codec import Codec, RowLayout
from eyespot.distill.cache.config import CacheError, CacheMismatchError, StoreKind
from eyespot.distill.cache.projection import Projection, fit_projection
from eyespot.distill.cache.reader import DESCRIPTION, ShardReader
from eyespot.distill.cache.shards import write_shard
from eyespot.encoders.identity import LATER_KEYS
from eyespot.engine.checkpoint import difference
from eyespot.features import Features
from eyespot.files import UnreadableFileError, read_json, remove, understood

FORMAT = 1
PROJECTION = "projection.safetensors"

SHARD_BYTES = 128 * 2**20
"""A shard is written when so much is waiting,"""
SHARD_SECONDS = 60.0
"""or when the first of it has waited so long, so that a kill loses at most that."""


class TeacherCache:
    """One teacher's features in one folder, `cache.json` beside the shards.

    The folder appears as a whole, with everything in it that says what its shards mean, when the first features are
    known. Several processes may do so at once: the first one's description holds, for all of them.

    Args:
        folder: of this teacher.
        setting: everything that the features depend on, JSON-able.
        pictures: int64 [n], what is in the picture of each row that there can be; see `HasContents.contents`.
        teacher: its name, for messages.
        store: how numbers are kept.
        rank: principal components to keep of each patch; None, or no fewer than the teacher has channels, keeps all.
        comparing: see `ShardReader`.

    Raises:
        CacheMismatchError: the folder was made with another setting.
        CacheError: its description cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        setting: dict[str, Any],
        pictures: np.ndarray,
        teacher: str,
        store: StoreKind,
        rank: int | None,
        comparing: bool = False,
    ) -> None:
        self.folder = folder
        rows = len(pictures)
        self.setting = json.loads(json.dumps({**setting, "rows": rows, "store": store, "rank": rank}))
        self.codec: Codec | None = None
        self._teacher, self._store, self._rank = teacher, store, rank
        self._waiting: dict[int, Tensor] = {}
        self._waiting_since = 0.0
        if (folder / DESCRIPTION).exists():
            self.codec = self._recorded()
        self.reader = ShardReader(folder, rows, pictures, comparing)

    @property
    def kept_variance(self) -> float | None:
        """Share of the patches' variance that the principal components keep, in [0, 1]; None without them."""
        projection = self.codec.projection if self.codec else None
        return projection.kept_variance if projection else None

    def known_codec(self) -> Codec:
        """The codec of features that are stored; another process may have stored them first.

        Raises:
            CacheMismatchError: it stored features of something else.
        """
        if self.codec is None:
            self.codec = self._recorded()
        return self.codec

    def codec_for(self, features: Features, sample: Callable[[], Iterable[Tensor]]) -> Codec:
        """The codec, made with the first features of the teacher, and recorded with the folder.

        Args:
            features: any of the teacher's.
            sample: gives patch maps [B, D, h, w] for the principal components, if those are wanted.
        """
        if self.codec is None:
            needed = self._stored_channels(features) < features.patches.shape[1]
            projection = fit_projection(sample(), self._stored_channels(features)) if needed else None
            self._record(self.layout_of(features), projection)
            self.codec = self._recorded()
        return self.codec

    def layout_of(self, features: Features) -> RowLayout:
        """How features like these are stored here."""
        height, width = features.grid
        return RowLayout(self._store, features.summary.shape[1], (self._stored_channels(features), height, width))

    def _stored_channels(self, features: Features) -> int:
        return min(self._rank or features.patches.shape[1], features.patches.shape[1])

    def read(self, rows: np.ndarray) -> tuple[Tensor, np.ndarray]:
        """See `ShardReader.read`; rows that wait to be written count as there."""
        records, there = self.reader.read(rows)
        for place in np.flatnonzero(~there).tolist():
            record = self._waiting.get(int(rows[place]))
            if record is not None:
                if not records.shape[1]:
                    records = torch.empty(len(rows), len(record), dtype=torch.uint8)
                records[place], there[place] = record, True
        return records, there

    def keep(self, rows: np.ndarray, records: Tensor) -> None:
        """Takes rows int64 [n] with their records uint8 [n, record_bytes], and writes a shard when it is time.

        Raises:
            CacheError: the shard cannot be written; its rows are not kept.
        """
        if not self._waiting:
            self._waiting_since = time.monotonic()
        self._waiting.update(zip(rows.tolist(), records.clone(), strict=True))
        self.flush_if_due()

    def flush_if_due(self) -> None:
        """Writes what waits if it is much or old."""
        if not self._waiting:
            return
        size = len(self._waiting) * len(next(iter(self._waiting.values())))
        if size >= SHARD_BYTES or time.monotonic() - self._waiting_since >= SHARD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes what waits.

        Raises:
            CacheError: it cannot be written (disk full, say); what waited is not kept.
        """
        waiting, self._waiting = sorted(self._waiting.items()), {}
        if not waiting:
            return
        rows = torch.tensor([row for row, _ in waiting])
        try:
            records = torch.stack([record for _, record in waiting])
            write_shard(self.folder, rows, records, torch.from_numpy(self.reader.pictures[rows.numpy()]))
        except OSError as error:
            raise CacheError(
                f"cannot write {len(rows)} rows to the teacher cache in {self.folder} ({error}); make room there, or "
                "name another cache.folder"
            ) from error

    def _record(self, layout: RowLayout, projection: Projection | None) -> None:
        """Makes the folder, unless another process was first."""
        description: dict[str, Any] = {"format": FORMAT, "setting": self.setting, **layout.as_json()}
        temporary = self.folder.with_name(f".{self.folder.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
        try:
            temporary.mkdir(parents=True)
            try:
                if projection is not None:
                    content = save({"mean": projection.mean, "components": projection.components})
                    (temporary / PROJECTION).write_bytes(content)
                    kept = {"kept_variance": projection.kept_variance, "crc32": zlib.crc32(content)}
                    description["projection"] = kept
                (temporary / DESCRIPTION).write_text(json.dumps(description, indent=1), encoding="utf-8")
                self._publish(temporary)
            finally:
                remove(temporary)
        except OSError as error:
            raise CacheError(f"cannot make the teacher cache in {self.folder}: {error}") from error

    def _publish(self, temporary: Path) -> None:
        try:
            os.rename(temporary, self.folder)  # fails if there is a folder with anything in it
        except OSError:
            if not (self.folder / DESCRIPTION).exists():
                raise

    def _recorded(self) -> Codec:
        """What the folder's description says, if it is about the same features."""
        file = self.folder / DESCRIPTION
        try:
            with understood(file):
                description = read_json(file)
                known, setting = description["format"], dict(description["setting"])
                layout = RowLayout.from_json(description) if known == FORMAT else None
                projection = dict(description.get("projection") or {})
                if layout and description["record_bytes"] != layout.record_bytes:
                    raise ValueError(f"rows of {description['record_bytes']} bytes")
        except UnreadableFileError as error:
            raise CacheError(f"{error}; delete {self.folder} to make it anew") from error
        if layout is None:
            raise CacheError(f"{self.folder} was made by another version of eyespot; name another cache.folder")
        different = difference(setting, self._wanted_by_its_version(setting))
        if different:
            raise CacheMismatchError(
                f"{self.folder} was made for something else (was -> wanted):\n  "
                + "\n  ".join(different)
                + "\nName another cache.folder, or delete this one to make it anew."
            )
        return Codec(layout, self._recorded_projection(projection), self._teacher)

    def _wanted_by_its_version(self, recorded: dict[str, Any]) -> dict[str, Any]:
        """What is wanted, without what versions of eyespot did not write down that knew less of a teacher."""
        was, now = recorded.get("teacher"), self.setting.get("teacher")
        if not isinstance(was, dict) or not isinstance(now, dict):
            return self.setting
        return {**self.setting, "teacher": {key: now[key] for key in now if key in was or key not in LATER_KEYS}}

    def _recorded_projection(self, recorded: dict[str, Any]) -> Projection | None:
        if not recorded:
            return None
        file = self.folder / PROJECTION
        content = file.read_bytes() if file.exists() else b""
        if zlib.crc32(content) != recorded.get("crc32"):
            raise CacheError(f"{file} is damaged, and its rows mean nothing without it; delete {self.folder}")
        tensors = load(content)
        return Projection(tensors["mean"], tensors["components"], recorded["kept_variance"])
