"""Features of frozen encoders, extracted once and shared by all tasks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from eyespot.encoders.base import Encoder
from eyespot.evaluate.datasets.base import Pictures, TensorPictures
from eyespot.features import Features

HALF_RANGE = 6e4  # just below the largest float16


def extract(
    encoder: Encoder,
    pictures: Tensor | Pictures,
    batch_size: int = 64,
    size: int | tuple[int, int] | None = None,
    patches: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Features:
    """The features of many pictures, on the CPU.

    The encoder runs in eval mode without gradients, where it is. (EUPE's official dense probes leave it in train mode,
    which keeps its position augmentation active; see `docs/evaluation.md`.)

    Args:
        encoder: any encoder.
        pictures: [N, 3, H, W], uint8 or floats in [0, 1], or anything that reads pictures at a wanted size.
        batch_size: pictures per forward pass.
        size: see `Encoder.fitting_size`.
        patches: False keeps only the mean patch of each picture, as a map of one cell: enough for tasks that look at
            summaries, and small.
        progress: called with (pictures done, pictures in all) after each batch.

    Returns:
        `Features` of all pictures: the summary in float32, the patches in float16 (float32 if they exceed its range).

    Raises:
        ValueError: no pictures, or an encoder that returns NaN or infinity.
    """
    source = TensorPictures(pictures) if isinstance(pictures, Tensor) else pictures
    if len(source) == 0:
        raise ValueError("there are no pictures to extract features from")
    wanted = encoder.fitting_size(size)
    training = encoder.training
    encoder.eval()
    parts: list[Features] = []
    try:
        for start in range(0, len(source), batch_size):
            stop = min(start + batch_size, len(source))
            parts.append(_encode(encoder, source.read(start, stop, wanted), patches))
            if progress is not None:
                progress(stop, len(source))
    finally:
        encoder.train(training)
    return Features(torch.cat([part.summary for part in parts]), torch.cat([part.patches for part in parts]))


@torch.inference_mode()
def _encode(encoder: Encoder, images: Tensor, patches: bool) -> Features:
    features = encoder(images.to(encoder.device)).float()
    grid = features.patches if patches else features.patches.mean((2, 3), keepdim=True)
    largest = float(grid.abs().amax())
    if not (largest < float("inf") and bool(features.summary.isfinite().all())):
        raise ValueError(f"{encoder.name} returned NaN or infinity; its features cannot be evaluated")
    # Mixed parts become float32 when they are joined.
    return Features(features.summary.cpu(), (grid.half() if largest < HALF_RANGE else grid).cpu())


class FeatureBank:
    """One encoder's features of every set of pictures that has been asked for, each extracted once.

    Args:
        encoder, size, batch_size: see `extract`.
        progress: see `extract`.
    """

    def __init__(
        self,
        encoder: Encoder,
        size: int | tuple[int, int] | None = None,
        batch_size: int = 64,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.encoder = encoder
        self.size = size
        self.batch_size = batch_size
        self.progress = progress
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
        return extract(self.encoder, pictures, self.batch_size, self.size, patches, self.progress)
