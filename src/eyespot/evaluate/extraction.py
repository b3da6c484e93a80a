"""Features of frozen encoders, extracted once and shared by all tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eyespot.data.labelled.base import Pictures, TensorPictures
from eyespot.data.sources.fingerprint import full_fingerprint
from eyespot.encoders.base import Encoder
from eyespot.encoders.identity import identity
from eyespot.evaluate.feature_store import FeatureStore
from eyespot.features import Features
from eyespot.waiting import awaited

HALF_RANGE = (1e-2, 6e4)
"""Largest features of a batch that float16 keeps: below, smaller ones would lose digits; above, it ends."""


class _OutOfRangeError(ArithmeticError):
    """Features that float16 cannot keep."""


def extract(
    encoder: Encoder,
    pictures: Tensor | Pictures,
    batch_size: int = 64,
    size: int | tuple[int, int] | None = None,
    patches: bool = True,
    progress: Callable[[int, int], None] | None = None,
    folder: Path | None = None,
) -> Features:
    """The features of many pictures, on the CPU.

    The encoder runs in eval mode without gradients, where it is. (EUPE's official dense probes leave it in train mode,
    which keeps its position augmentation active; see `docs/evaluation.md`.) The next pictures are read while it works.

    Args:
        encoder: any encoder.
        pictures: [N, 3, H, W], uint8 or floats in [0, 1], or anything that reads pictures at a wanted size.
        batch_size: pictures per forward pass.
        size: see `Encoder.fitting_size`.
        patches: False keeps only the mean patch of each picture, as a map of one cell: enough for tasks that look at
            summaries, and small.
        progress: called with (pictures done, pictures in all) after each batch.
        folder: keeps the features in memory-mapped files there, one sub-folder per model, weights, size and pictures;
            what is there already is not computed again. None keeps them in memory.

    Returns:
        `Features` of all pictures: the summary in float32, the patches in float16 (float32 if they are too large or
        too small for it, so that no result depends on their scale).

    Raises:
        ValueError: no pictures, or an encoder that returns NaN or infinity.
    """
    source = TensorPictures(pictures) if isinstance(pictures, Tensor) else pictures
    if len(source) == 0:
        raise ValueError("there are no pictures to extract features from")
    wanted = encoder.fitting_size(size)
    setting: dict[str, Any] = {"model": encoder.name, "size": list(wanted), "dense": patches}
    if folder is not None:
        setting |= {**identity(encoder), "pictures": full_fingerprint(source)}
    with eval_mode(encoder):
        try:
            store = FeatureStore(folder, setting, len(source), np.float32, np.float16)
            _fill(store, encoder, source, batch_size, wanted, progress)
        except _OutOfRangeError:
            store = FeatureStore(folder, setting, len(source), np.float32, np.float32)
            _fill(store, encoder, source, batch_size, wanted, progress)
    return store.all()


@contextmanager
def eval_mode(encoder: Encoder) -> Iterator[None]:
    """Eval mode within; every module's own mode is the same afterwards, also after an error."""
    before = {module: module.training for module in encoder.modules()}
    try:
        encoder.eval()
        yield
    finally:
        for module, training in before.items():
            module.training = training


def _fill(
    store: FeatureStore,
    encoder: Encoder,
    source: Pictures,
    batch_size: int,
    size: tuple[int, int],
    progress: Callable[[int, int], None] | None,
) -> None:
    """Extracts what the store lacks, always in the same batches, so that an interruption changes no number."""
    ranges = [range(start, min(start + batch_size, len(source))) for start in range(0, len(source), batch_size)]
    missing = [part for part in ranges if not bool(store.has(torch.tensor(part)).all())]
    done = len(source) - sum(len(part) for part in missing)
    for part, images in zip(missing, read_ahead(source, missing, size), strict=True):
        store.write(torch.tensor(part), _encode(encoder, images, store))
        done += len(part)
        if progress is not None:
            progress(done, len(source))


def read_ahead(source: Pictures, parts: list[range], size: tuple[int, int]) -> Iterator[Tensor]:
    """Pictures part by part, [n, 3, height, width] in [0, 1]; the next part is read while one is looked at."""
    with ThreadPoolExecutor(1) as reader:
        waiting = [reader.submit(source.read, part.start, part.stop, size) for part in parts[:1]]
        for number in range(len(parts)):
            if number + 1 < len(parts):
                following = parts[number + 1]
                waiting.append(reader.submit(source.read, following.start, following.stop, size))
            yield awaited(waiting.pop(0), "pictures to be read")


@torch.inference_mode()
def _encode(encoder: Encoder, images: Tensor, store: FeatureStore) -> Features:
    features = encoder(images.to(encoder.device)).float()
    largest = float(features.patches.abs().amax())
    if not (largest < float("inf") and bool(features.summary.isfinite().all())):
        raise ValueError(f"{encoder.name} returned NaN or infinity; its features cannot be evaluated")
    if not HALF_RANGE[0] < largest < HALF_RANGE[1] and largest > 0 and store.types["patches"] is np.float16:
        raise _OutOfRangeError
    grid = features.patches if store.setting["dense"] else features.patches.mean((2, 3), keepdim=True)
    return Features(features.summary.cpu(), grid.cpu())


class FeatureBank:
    """One encoder's features of every set of pictures that has been asked for, each extracted once.

    Args:
        encoder: see `extract`, as for all the others.
        size: likewise.
        batch_size: likewise.
        progress: likewise.
        folder: likewise.
    """

    def __init__(
        self,
        encoder: Encoder,
        size: int | tuple[int, int] | None = None,
        batch_size: int = 64,
        progress: Callable[[int, int], None] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.encoder = encoder
        self.size = size
        self.batch_size = batch_size
        self.progress = progress
        self.folder = folder
        self._full: dict[Pictures, Features] = {}
        self._small: dict[Pictures, Features] = {}

    def features(self, pictures: Pictures) -> Features:
        """Summary and patches."""
        if pictures not in self._full:
            self._full[pictures] = self._extract(pictures, patches=True)
        return self._full[pictures]

    def summaries(self, pictures: Pictures) -> Tensor:
        """The summaries alone, [N, C] float32; patches are not kept."""
        if pictures in self._full:
            return self._full[pictures].summary
        if pictures not in self._small:
            self._small[pictures] = self._extract(pictures, patches=False)
        return self._small[pictures].summary

    def _extract(self, pictures: Pictures, patches: bool) -> Features:
        return extract(self.encoder, pictures, self.batch_size, self.size, patches, self.progress, self.folder)
