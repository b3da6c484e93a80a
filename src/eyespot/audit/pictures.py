"""The pictures of an audit: those the students learn from, and those everything is measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eyespot.data import DataConfig, PictureLoader, PictureSource, ViewConfig, open_source
from eyespot.data.loading.sampling import spread
from eyespot.data.sources.fingerprint import contents_of, fingerprint_of, full_fingerprint
from eyespot.randomness import torch_generator


class PartSource:
    """Some of the pictures of a source, as a source of their own.

    Args:
        source: where they come from.
        numbers: which of its pictures.
    """

    def __init__(self, source: PictureSource, numbers: Sequence[int]) -> None:
        self.name, self.classes = source.name, source.classes
        self.source, self.numbers = source, list(numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, index: int) -> Image.Image:
        """See `PictureSource.read`."""
        return self.source.read(self.numbers[index])

    def picture_name(self, index: int) -> str:
        """See `PictureSource.picture_name`."""
        return self.source.picture_name(self.numbers[index])

    def label(self, index: int) -> int | None:
        """See `PictureSource.label`."""
        return self.source.label(self.numbers[index])

    def fingerprint(self) -> str:
        """See `PictureSource.fingerprint`."""
        return fingerprint_of([self.source.fingerprint(), *map(str, self.numbers)])

    def contents(self) -> np.ndarray:
        """See `HasContents.contents`; of the whole source, so that every part tells of a change in any."""
        return contents_of(self.source)


@dataclass(frozen=True)
class AuditPictures:
    """Pictures in two parts that share none.

    Attributes:
        data: how views for training are made, at the size that suits everybody.
        training: what the students learn from, opened.
        held_out: uint8 [N, 3, S, S], the largest square in the middle of each held-out picture.
        failures: reason by name of each held-out picture that could not be read and was replaced by another.
    """

    data: DataConfig
    training: Sequence[PictureSource]
    held_out: Tensor
    failures: dict[str, str] = field(default_factory=dict)

    def loader(self, batch_size: int, seed: int) -> PictureLoader:
        """Batches for training, in an order and in views that follow from the seed."""
        return PictureLoader(replace(self.data, seed=seed), batch_size, sources=self.training)

    def fingerprint(self) -> str:
        """Tells whether these are the same pictures, down to what is in them."""
        return fingerprint_of(full_fingerprint(source) for source in self.training)


def open_pictures(data: DataConfig, size: int, held_out: int) -> AuditPictures:
    """Opens the sources and holds some pictures out, evenly spread over all of them.

    Neighbouring frames of a video end up in both parts; name sources of unrelated pictures where that matters.

    Args:
        data: sources and views.
        size: side of the views in pixels.
        held_out: how many pictures to hold out.

    Raises:
        FileNotFoundError, ValueError: a source cannot be opened or is empty, or there are too few pictures.
    """
    data = replace(data, size=size)
    sources = [open_source(spec, data.enough_side or 4 * size) for spec in data.sources]
    total = sum(map(len, sources))
    if total < 2 * held_out:
        raise ValueError(
            f"{total} pictures are too few: {held_out} are held out and at least as many must be left to learn from; "
            f"name more pictures with data, or hold out at most {total // 2} (held_out, at least 8)"
        )
    chosen = set(spread(total, held_out))
    kept: list[PictureSource] = []
    aside: list[PictureSource] = []
    first = 0
    for source in sources:
        numbers = range(len(source))
        kept.append(PartSource(source, [number for number in numbers if first + number not in chosen]))
        aside.append(PartSource(source, [number for number in numbers if first + number in chosen]))
        first += len(source)
    images, failures = _whole(data, [part for part in aside if len(part)])
    return AuditPictures(data, kept, images, failures)


def _whole(data: DataConfig, parts: Sequence[PictureSource]) -> tuple[Tensor, dict[str, str]]:
    """Every picture of the parts once, without augmentation, in an order that mixes them; and what was unreadable."""
    images: list[Tensor] = []
    failures: dict[str, str] = {}
    for part in parts:
        plain = DataConfig(sources=[part.name], view=ViewConfig.plain(), size=data.size)
        loader = PictureLoader(plain, len(part), sources=[part])
        images.append(loader.batch(0)["images"])
        failures |= loader.failures
    together = torch.cat(images)
    return together[torch.randperm(len(together), generator=torch_generator("held-out pictures"))], failures
