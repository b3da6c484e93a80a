"""SAK's photometric distortion (its second stage, section (c) of our notes): brightness, contrast, saturation, hue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eyespot.randomness import Key, numpy_generator

BRIGHTNESS = 32.0
CONTRAST = SATURATION = (0.5, 1.5)
HUE = 18 / 180
PROBABILITY = 0.5

_LEVELS = np.arange(256.0)


@dataclass(frozen=True)
class Distortion:
    """A drawn change of colours; the defaults change nothing.

    Attributes:
        brightness: added to every value of [0, 255].
        contrast: factor of every value.
        contrast_first: whether contrast comes before saturation and hue or after them.
        saturation: factor of the saturation in HSV.
        hue: turn of the hue in shares of the circle.
    """

    brightness: float = 0.0
    contrast: float = 1.0
    contrast_first: bool = True
    saturation: float = 1.0
    hue: float = 0.0


def draw_distortion(*keys: Key) -> Distortion:
    """Draws a distortion, a pure function of `keys`: each of the four changes happens with probability 0.5."""
    happens = numpy_generator("distortion", *keys).random(9)
    amounts = happens[5:]
    brightness, contrast, saturation, hue = happens[:4] < PROBABILITY
    return Distortion(
        brightness=_within(-BRIGHTNESS, BRIGHTNESS, amounts[0]) if brightness else 0.0,
        contrast=_within(*CONTRAST, amounts[1]) if contrast else 1.0,
        contrast_first=bool(happens[4] < PROBABILITY),
        saturation=_within(*SATURATION, amounts[2]) if saturation else 1.0,
        hue=_within(-HUE, HUE, amounts[3]) if hue else 0.0,
    )


def distorted(image: Tensor, distortion: Distortion) -> Tensor:
    """uint8 [3, H, W] with other colours.

    Every step cuts off at 0 and 255 and rounds down to bytes, as published. The published code uses OpenCV's HSV with
    180 hues; ours is Pillow's with 256, and pictures whose saturation and hue stay as they are do not go through it.
    """
    values = image.numpy()
    first = _table(1.0, distortion.brightness)
    last = _table(distortion.contrast, 0.0)
    values = last[first[values]] if distortion.contrast_first else first[values]
    if distortion.saturation != 1 or distortion.hue:
        values = _in_hsv(values, distortion.saturation, distortion.hue)
    if not distortion.contrast_first:
        values = last[values]
    return torch.from_numpy(values)


def _within(low: float, high: float, share: float) -> float:
    return float(low + (high - low) * share)


def _table(factor: float, offset: float) -> np.ndarray:
    """What each byte becomes, uint8 [256]."""
    return np.clip(_LEVELS * factor + offset, 0, 255).astype(np.uint8)


def _in_hsv(values: np.ndarray, saturation: float, hue: float) -> np.ndarray:
    turned = (_LEVELS + round(256 * hue)) % 256
    tables = [*turned.astype(int).tolist(), *_table(saturation, 0.0).tolist(), *range(256)]
    picture = Image.fromarray(np.ascontiguousarray(values.transpose(1, 2, 0))).convert("HSV").point(tables)
    return np.ascontiguousarray(np.array(picture.convert("RGB")).transpose(2, 0, 1))
