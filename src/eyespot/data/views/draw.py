"""Views: the random crops and colours under which a picture is seen.

The paper (EUPE, implementation details; A.6 of our notes) names random resized crop, horizontal flip, colour jitter,
Gaussian blur and solarisation and gives no parameters. The defaults are ours: what DINOv2 does to its two global
crops, with blur and solarisation at the mean of the two, and no greyscale, which the paper does not name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eyespot.data.views.config import EraseMode, ViewConfig
from eyespot.data.views.pixels import blurred, channel_means, recoloured, resized, solarized
from eyespot.data.views.strong import draw_erased, erase, randaugment
from eyespot.randomness import Key, numpy_generator, seed_of

BLUR_REFERENCE = 224
"""Side in pixels of the view in whose pixels `blur_sigma` is given (DINOv2's global crops)."""

_CROP_TRIES = 10
_CROP_DRAWS = 2 * _CROP_TRIES + 2  # areas, ratios, x and y
_SAME = np.eye(3)
_LUMA = np.array([0.299, 0.587, 0.114])
_GREY = np.tile(_LUMA, (3, 1))
_RGB_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_YIQ_TO_RGB = np.linalg.inv(_RGB_TO_YIQ)


@dataclass(frozen=True)
class View:
    """One drawn view: everything needed to see the picture that way again, at any size. `asdict` gives plain JSON.

    Attributes:
        box: left, top, right and bottom of the crop as shares of the picture's width and height, in [0, 1].
        flip: whether it is mirrored horizontally.
        brightness: factor, 1 changes nothing; likewise `contrast` and `saturation`.
        hue: turn of the hue in shares of the circle, 0 changes nothing.
        grayscale: whether colour is taken away.
        blur_sigma: standard deviation in pixels of a view of 224, 0 for no blur.
        solarize: whether values from 128 on are inverted.
        randaugment: RandAugment's policy, None for none.
        erased: left, top, right and bottom of what is erased as shares of the view, None for nothing.
        erase_mode: what fills it.
        strong_seed: what RandAugment and the filling draw with.
    """

    box: tuple[float, float, float, float]
    flip: bool = False
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    grayscale: bool = False
    blur_sigma: float = 0.0
    solarize: bool = False
    randaugment: str | None = None
    erased: tuple[float, float, float, float] | None = None
    erase_mode: EraseMode = "const"
    strong_seed: int = 0


def draw_view(config: ViewConfig, picture_size: tuple[int, int], *keys: Key) -> View:
    """Draws a view: a pure function of its arguments.

    Every parameter has its own places in one sequence of uniform numbers, so switching an option on or off leaves the
    draws of the others as they were.

    Args:
        config: what may be drawn.
        picture_size: (width, height) of the picture in pixels; only their ratio matters.
        keys: what names the draw, e.g. seed, source, picture, number of the view.
    """
    uniform = numpy_generator("view", *keys).random(_CROP_DRAWS + 10).tolist()
    # A new option takes further numbers at the end.
    flip, jitter, brightness, contrast, saturation, hue, grayscale, blur, sigma, solarize = uniform[_CROP_DRAWS:]
    jittered = jitter < config.jitter

    def within(strength: float, number: float) -> float:
        return strength * (2 * number - 1) if jittered else 0.0

    low, high = config.blur_sigma
    return View(
        box=_draw_box(config, picture_size, uniform[:_CROP_DRAWS]),
        flip=flip < config.flip,
        brightness=1 + within(config.brightness, brightness),
        contrast=1 + within(config.contrast, contrast),
        saturation=1 + within(config.saturation, saturation),
        hue=within(config.hue, hue),
        grayscale=grayscale < config.grayscale,
        blur_sigma=low + (high - low) * sigma if blur < config.blur else 0.0,
        solarize=solarize < config.solarize,
        randaugment=config.randaugment,
        erased=draw_erased(config.erase, *keys) if config.erase else None,
        erase_mode=config.erase_mode,
        strong_seed=seed_of("strong", *keys) if config.randaugment or config.erase else 0,
    )


def apply_view(picture: Image.Image, view: View, size: int) -> Tensor:
    """The picture under the view.

    The crop is rounded to whole pixels and resized bicubically with antialiasing. Brightness, contrast, saturation, hue
    (turned about the grey axis in YIQ) and greyscale, in this order, are one affine map of RGB, clipped once at its
    end; then blur, then solarisation. That these are one map is ours, for speed. RandAugment comes before them, after
    the flip, and erasing after them, as in timm.

    Args:
        picture: 8-bit RGB.
        view: what `draw_view` drew for a picture of this shape.
        size: side of the result in pixels.

    Returns:
        uint8 tensor [3, size, size], RGB.
    """
    pixels = resized(_cropped(picture, view.box), size)
    if view.flip:
        pixels = pixels[:, ::-1]
    if view.randaugment:
        pixels = np.asarray(randaugment(Image.fromarray(pixels), view.randaugment, view.strong_seed))
    planes = _recoloured(np.array(pixels.transpose(2, 0, 1), order="C"), view)
    if view.blur_sigma:
        planes = blurred(planes, view.blur_sigma * size / BLUR_REFERENCE)
    if view.solarize:
        planes = solarized(planes)
    if view.erased:
        erase(planes.transpose(1, 2, 0), view.erased, view.erase_mode, view.strong_seed)
    return torch.from_numpy(planes)


def _cropped(picture: Image.Image, box: tuple[float, float, float, float]) -> Image.Image:
    """The whole pixels nearest to a box, at least one."""
    width, height = picture.size
    left, top = min(round(box[0] * width), width - 1), min(round(box[1] * height), height - 1)
    right, bottom = max(round(box[2] * width), left + 1), max(round(box[3] * height), top + 1)
    return picture.crop((left, top, min(right, width), min(bottom, height)))


def _draw_box(
    config: ViewConfig, picture_size: tuple[int, int], uniform: list[float]
) -> tuple[float, float, float, float]:
    """A random resized crop: the first of ten drawn shapes that fits, else the largest allowed one, in the middle."""
    aspect = picture_size[0] / picture_size[1]
    (low, high), (log_low, log_high) = config.scale, map(math.log, config.ratio)
    for first, second in zip(uniform[:_CROP_TRIES], uniform[_CROP_TRIES:], strict=False):
        area, ratio = low + (high - low) * first, math.exp(log_low + (log_high - log_low) * second)
        width, height = math.sqrt(area * ratio / aspect), math.sqrt(area * aspect / ratio)
        if width <= 1 and height <= 1:
            x, y = uniform[2 * _CROP_TRIES :]
            break
    else:
        nearest = min(max(aspect, config.ratio[0]), config.ratio[1])
        width, height = min(1.0, nearest / aspect), min(1.0, aspect / nearest)
        x = y = 0.5
    left, top = x * (1 - width), y * (1 - height)
    return (left, top, min(left + width, 1.0), min(top + height, 1.0))


def _recoloured(planes: np.ndarray, view: View) -> np.ndarray:
    changes = list(_linear_changes(view))
    if not changes and view.brightness == view.contrast == 1:
        return planes
    matrix, offset = _SAME * (view.brightness * view.contrast), np.zeros(3)
    if view.contrast != 1:
        grey = view.brightness * float(_LUMA @ channel_means(planes))
        offset += grey * (1 - view.contrast)
    for change in changes:
        matrix, offset = change @ matrix, change @ offset
    return recoloured(planes, matrix, offset)


def _linear_changes(view: View) -> Iterator[np.ndarray]:
    """The 3x3 maps of RGB for saturation, hue and greyscale, as far as the view has them."""
    if view.saturation != 1:
        yield _SAME * view.saturation + _GREY * (1 - view.saturation)
    if view.hue:
        cosine, sine = math.cos(2 * math.pi * view.hue), math.sin(2 * math.pi * view.hue)
        turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
        yield _YIQ_TO_RGB @ turn @ _RGB_TO_YIQ
    if view.grayscale:
        yield _GREY
