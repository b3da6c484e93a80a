"""Calibration pictures: what a static int8 conversion looks at to learn the ranges of activations."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from eyespot.data import PictureError, PictureSource, open_source
from eyespot.data.loading.batch_loader import MOST_BROKEN_IN_A_ROW, BrokenSourceError
from eyespot.data.toybox.spec import SMALLEST
from eyespot.randomness import Key, numpy_generator


def calibration_batches(
    sources: Sequence[str] | None, count: int, batch: int, size: tuple[int, int], seed: int
) -> list[Tensor]:
    """Pictures for calibration: a pure function of its arguments.

    The pictures are divided evenly among the sources, and in each source one is drawn from every stretch of equal
    length, so that all folders of a sorted source have their share. They are neither flipped nor recoloured: ranges
    should be those of use. A source with too few good pictures gives what it has.

    Args:
        sources: what `eyespot.data.open_source` takes (folders, shards); None for the built-in toybox, which knows no
            photographs: ranges are then a guess, good for trying a pipeline.
        count: how many pictures; rounded up to whole batches.
        batch: pictures per batch.
        size: (height, width) in pixels. Pictures keep their proportions: the largest part in the middle that has the
            shape of `size` is resized to it (bicubic, antialiased).
        seed: names the draw.

    Returns:
        Batches float32 [batch, 3, height, width], RGB in [0, 1]. All are full: where the pictures do not suffice, the
        last one is filled up with the first pictures again.

    Raises:
        ValueError: `count`, `batch` or `size` below 1, an empty list of sources.
        BrokenSourceError: too many pictures of a source in a row cannot be read.
        FileNotFoundError: a source that is not there.
    """
    if min(count, batch, *size) < 1:
        raise ValueError(f"calibration needs at least one picture, got count {count}, batch {batch}, size {size}")
    if sources is not None and (isinstance(sources, str) or not sources):
        raise ValueError(f"sources is a list of folders or shards, or None for the toybox; got {sources!r}")
    opened = [open_source(spec) for spec in sources or [f"toybox:{_rounded_up(count, batch)}@{max(SMALLEST, *size)}"]]
    shares = _shares(_rounded_up(count, batch), [len(source) for source in opened])
    failures: list[PictureError] = []
    pictures = [
        picture
        for number, (source, share) in enumerate(zip(opened, shares, strict=True))
        for picture in _drawn(source, share, size, (seed, "calibration", number), failures)
    ]
    if failures:
        warnings.warn(f"{len(failures)} broken pictures left out, the first is {failures[0]}", stacklevel=2)
    # Sources take turns, so that the first batches, which are all that a quick look takes, have some of each.
    order = numpy_generator(seed, "calibration order").permutation(len(pictures))
    whole = min(_rounded_up(count, batch), _rounded_up(len(pictures), batch))
    images = torch.stack([pictures[order[at % len(pictures)]] for at in range(whole)])
    return list(images.split(batch))


def _rounded_up(count: int, batch: int) -> int:
    return math.ceil(count / batch) * batch


def _shares(count: int, lengths: Sequence[int]) -> list[int]:
    """Pictures per source: equal as far as the sources' lengths allow, `count` in all if there are so many."""
    shares = [0] * len(lengths)
    while sum(shares) < min(count, sum(lengths)):
        open_ones = [number for number, length in enumerate(lengths) if shares[number] < length]
        missing = count - sum(shares)
        for place, number in enumerate(open_ones):
            more = missing // len(open_ones) + (place < missing % len(open_ones))
            shares[number] = min(lengths[number], shares[number] + more)
    return shares


def _drawn(
    source: PictureSource, count: int, size: tuple[int, int], keys: tuple[Key, ...], failures: list[PictureError]
) -> list[Tensor]:
    """`count` different good pictures, one from each stretch of the source; a broken one is replaced by any other."""
    generator = numpy_generator(*keys)
    bounds = [place * len(source) // count for place in range(count + 1)] if count else [0]
    chosen = [int(generator.integers(low, high)) for low, high in itertools.pairwise(bounds)]
    others = generator.permutation(np.setdiff1d(np.arange(len(source)), chosen)).tolist()
    pictures: list[Tensor] = []
    in_a_row = 0
    for index in [*chosen, *others]:
        if len(pictures) == count or in_a_row == MOST_BROKEN_IN_A_ROW:
            break
        try:
            pictures.append(_fitted(source.read(index), size))
            in_a_row = 0
        except PictureError as error:
            failures.append(error)
            in_a_row += 1
    if len(pictures) < count and (not pictures or in_a_row == MOST_BROKEN_IN_A_ROW):
        raise BrokenSourceError(
            f"{in_a_row} pictures of {source.name!r} in a row cannot be read ({len(source)} are there); "
            f"the last is {failures[-1]}"
        )
    return pictures


def _fitted(picture: Image.Image, size: tuple[int, int]) -> Tensor:
    fitted = ImageOps.fit(picture, (size[1], size[0]), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(fitted)).permute(2, 0, 1).float() / 255
