"""A committee that remembers: teacher features of every (picture, view) are computed once and read back afterwards.

It works because a view is a pure function of (seed, picture, view number): with a fixed number of views per picture,
the same features come up again in every epoch, every stage and every run over the same data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eyespot.distill.committee import Committee, as_unit_floats
from eyespot.encoders import Encoder
from eyespot.encoders.identity import identity
from eyespot.feature_store import FeatureStore
from eyespot.features import Features


class CachedCommittee(nn.Module):
    """A `Committee` whose features are kept in float16 on disk, filled as training asks for them.

    Freshly computed features are rounded to float16 too before they are used, so a step gives the same result whether
    its features were computed or read.

    Args:
        committee: the teachers.
        folder: where the files go; one sub-folder per teacher and setting, so that runs can share it.
        setting: everything else that the features depend on (data fingerprint, view settings, seed), JSON-able.
        source_lengths: pictures per data source, in order.
        views: views per picture.
    """

    def __init__(
        self,
        committee: Committee,
        folder: str | Path,
        *,
        setting: dict[str, Any],
        source_lengths: list[int],
        views: int,
    ) -> None:
        super().__init__()
        self.committee = committee
        self.views = views
        self.offsets = torch.tensor([0, *source_lengths]).cumsum(0)
        rows = int(self.offsets[-1]) * views
        self.stores = {
            name: FeatureStore(Path(folder), {**identity(teacher), **setting, "max_grid": committee.max_grid}, rows)
            for name, teacher in committee.items()
        }

    def items(self) -> Iterable[tuple[str, Encoder]]:
        """(name, teacher) pairs."""
        return self.committee.items()

    @torch.no_grad()
    def forward(self, batch: Mapping[str, Any], size: int | None = None) -> dict[str, Features]:
        """Features of every teacher in float32, see `Committee.forward`.

        Raises:
            ValueError: a size other than the teachers' default was asked for; the cache holds one size.
        """
        if size is not None:
            raise ValueError("the teacher cache holds features at the teachers' default size; set no teacher_sizes")
        rows = (self.offsets[batch["source"].cpu()] + batch["index"].cpu()) * self.views + batch["view"].cpu()
        device = batch["images"].device
        return {name: self._look(name, teacher, batch["images"], rows).to(device) for name, teacher in self.items()}

    def _look(self, name: str, teacher: Encoder, images: Tensor, rows: Tensor) -> Features:
        store = self.stores[name]
        missing = ~store.has(rows)
        if missing.any():
            fresh = images[missing.to(images.device)]
            store.write(rows[missing], self.committee.look(teacher, as_unit_floats(fresh)))
        return store.read(rows)
