"""Strong augmentation of a view: RandAugment and random erasing, as timm's classifier recipes have them.

Both are replayed from what a `View` holds: the policy's name and a seed, and the erased rectangle. timm's RandAugment
draws from global generators inside; it is given them seeded, and they are put back afterwards.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from eyespot.data.views.config import EraseMode
from eyespot.randomness import Key, library_draws, numpy_generator

Box = tuple[float, float, float, float]

ERASED_AREA = (0.02, 1 / 3)
"""Smallest and largest share of a view that is erased: timm's defaults."""
ERASED_RATIO = (0.3, 1 / 0.3)
"""Smallest and largest height / width of what is erased: likewise."""

_TRIES = 10
_MEAN = 255 * np.array(IMAGENET_DEFAULT_MEAN)
_STD = 255 * np.array(IMAGENET_DEFAULT_STD)


def randaugment(picture: Image.Image, policy: str, seed: int) -> Image.Image:
    """A picture under timm's RandAugment; a pure function of its arguments.

    Args:
        picture: 8-bit RGB.
        policy: see `eyespot.data.views.config.check_policy`.
        seed: of the draw.

    Returns:
        8-bit RGB of the same size; what comes in from outside has ImageNet's mean colour.
    """
    transform = _transform(policy, min(picture.size))
    with library_draws("randaugment", seed):
        augmented: Image.Image = transform(picture)
    return augmented


@lru_cache(16)
def _transform(policy: str, side: int) -> Any:
    fill = tuple(round(value) for value in _MEAN.tolist())
    return rand_augment_transform(policy, {"translate_const": int(side * 0.45), "img_mean": fill})


def draw_erased(probability: float, *keys: Key) -> Box | None:
    """The rectangle that is erased from a square view: a pure function of its arguments.

    As in timm: area and aspect ratio are drawn until both sides fit, ten times at most; then the place.

    Args:
        probability: that anything is erased.
        keys: what names the draw.

    Returns:
        Left, top, right and bottom as shares of the view's side, or None.
    """
    uniform = numpy_generator("erased", *keys).random(2 * _TRIES + 3)
    if uniform[0] >= probability:
        return None
    (low, high), (log_low, log_high) = ERASED_AREA, np.log(ERASED_RATIO)
    area = low + (high - low) * uniform[1 : _TRIES + 1]
    ratio = np.exp(log_low + (log_high - log_low) * uniform[_TRIES + 1 : 2 * _TRIES + 1])
    widths, heights = np.sqrt(area / ratio), np.sqrt(area * ratio)
    fits = np.flatnonzero((widths < 1) & (heights < 1))
    if not fits.size:
        return None
    width, height = float(widths[fits[0]]), float(heights[fits[0]])
    left, top = (uniform[-2:] * (1 - width, 1 - height)).tolist()
    return left, top, left + width, top + height


def erase(pixels: np.ndarray, box: Box, mode: EraseMode, seed: int) -> None:
    """Erases a rectangle of a view, in place.

    timm erases normalised pictures; here encoders normalise for themselves, so the same is said in 8 bits. `const` is
    ImageNet's mean colour, which is timm's 0. `pixel` is Gaussian noise in each pixel and channel with ImageNet's mean
    and standard deviation, which is timm's standard normal noise, but cut off at black and white (ours).

    Args:
        pixels: uint8 [S, S, 3].
        box: as shares of S, see `draw_erased`; at least one pixel is erased.
        mode: what fills it.
        seed: of the noise.
    """
    side = len(pixels)
    left, top = (min(math.floor(share * side + 0.5), side - 1) for share in box[:2])
    right, bottom = (
        max(math.floor(share * side + 0.5), start + 1) for share, start in zip(box[2:], (left, top), strict=True)
    )
    hole = pixels[top:bottom, left:right]
    filling = _MEAN
    if mode == "pixel":
        filling = numpy_generator("erased", seed).normal(_MEAN, _STD, hole.shape)
    hole[:] = np.clip(np.rint(filling), 0, 255)
