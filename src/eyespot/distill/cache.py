"""A committee that remembers: teacher features of every (picture, view) are computed once and read back afterwards.

It works because a view is a pure function of (seed, picture, view number): with a fixed number of views per picture,
the same features come up again in every epoch, every stage and every run over the same data.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eyespot.distill.committee import Committee, as_unit_floats
from eyespot.encoders import Encoder
from eyespot.features import Features
from eyespot.files import atomic_write_text


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
            name: _Store(Path(folder), teacher, {**setting, "max_grid": committee.max_grid, "rows": rows})
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


class _Store:
    """The features of one teacher in three memory-mapped files: summaries, patches, and which rows are there.

    The files are sparse: what was never computed takes no space. A row is marked only after it was written, so a
    killed process leaves no half-written row that counts.
    """

    def __init__(self, root: Path, teacher: Encoder, setting: dict[str, Any]) -> None:
        # A licence is named beside the features, it is not in them.
        name = re.sub(r"[?&]license=[^&]*$", "", teacher.name)
        self.setting = {"teacher": name, "weights": _weights_hash(teacher), **setting}
        text = json.dumps(self.setting, sort_keys=True, indent=1)
        self.folder = root / hashlib.sha256(text.encode()).hexdigest()[:16]
        self.rows = setting["rows"]
        self._maps: tuple[np.memmap, np.memmap] | None = None
        self.folder.mkdir(parents=True, exist_ok=True)
        atomic_write_text(self.folder / "setting.json", text)
        self.filled = self._map("filled.u8", np.uint8, (self.rows,))

    def _map(self, name: str, dtype: type, shape: tuple[int, ...]) -> np.memmap:
        path = self.folder / name
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        with open(path, "ab") as file:
            file.truncate(size)
        return np.memmap(path, dtype=dtype, mode="r+", shape=shape)

    def has(self, rows: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(self.filled[rows.numpy()]) == 1)

    def write(self, rows: Tensor, features: Features) -> None:
        half = Features(features.summary.half(), features.patches.half()).to("cpu")
        if not half.summary.isfinite().all() or not half.patches.isfinite().all():
            raise ValueError(
                f"teacher {self.setting['teacher']} gives features that are NaN, infinite or beyond float16 (65504)"
            )
        summaries, patches = self._open(half)
        where = rows.numpy()
        summaries[where] = half.summary.numpy()
        patches[where] = half.patches.numpy()
        self.filled[where] = 1

    def read(self, rows: Tensor) -> Features:
        summaries, patches = self._open(None)
        where = rows.numpy()
        return Features(torch.from_numpy(summaries[where]), torch.from_numpy(patches[where])).float()

    def _open(self, example: Features | None) -> tuple[np.memmap, np.memmap]:
        """The two feature files; the first features ever written tell their shape."""
        if self._maps is None:
            shape_file = self.folder / "shape.json"
            if not shape_file.exists():
                assert example is not None
                shape = [list(example.summary.shape[1:]), list(example.patches.shape[1:])]
                atomic_write_text(shape_file, json.dumps(shape))
            summary, patch = json.loads(shape_file.read_text())
            self._maps = (
                self._map("summary.f16", np.float16, (self.rows, *summary)),
                self._map("patches.f16", np.float16, (self.rows, *patch)),
            )
        return self._maps


def _weights_hash(teacher: Encoder) -> str:
    """A hash of a teacher's weights: of its file if it is one, else of its tensors."""
    digest = hashlib.sha256()
    file = getattr(teacher, "path", None)
    if file is not None:
        digest.update(Path(file).read_bytes())
    for name, value in teacher.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
