"""Random views of pictures together with their label maps, as the published dense probes draw them.

All numbers are those of EUPE's release (paper notes, C; `eval/segmentation` and `eval/depth` of the official code).
A draw is a pure function of its keys.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from eyespot.data.views.resizing import resized_image
from eyespot.randomness import Key, numpy_generator

Range = tuple[float, float]
CROP_TRIES = 10


@dataclass(frozen=True)
class SegmentationViews:
    """What is drawn for segmentation.

    Attributes:
        short_side: of the picture, in pixels, before `scale`.
        scale: range of the random factor.
        crop: side of the square crop in pixels.
        largest_share: a crop of which one class covers this much is drawn again, ten times at most; 1 takes any crop.
        flip: probability of mirroring.
        distortion: probability of each of the four changes of colour.
        brightness: largest shift up or down, of 255.
        contrast: range of the factor on all values, before or after the next two, with equal chance.
        saturation: range of the factor.
        hue: range of the turn in shares of the colour circle.
    """

    short_side: int = 512
    scale: Range = (0.5, 2.0)
    crop: int = 512
    largest_share: float = 0.75
    flip: float = 0.5
    distortion: float = 0.5
    brightness: float = 32.0
    contrast: Range = (0.5, 1.5)
    saturation: Range = (0.5, 1.5)
    hue: Range = (-0.5, 0.5)


@dataclass(frozen=True)
class DepthViews:
    """What is drawn for depth.

    Attributes:
        crop: (height, width) in pixels.
        rotate: probability of a rotation.
        rotation: its largest angle in degrees, either way.
        flip: probability of mirroring.
        recolour: probability of the three changes of colour, which come together.
        gamma: range of the exponent on values in [0, 255].
        brightness: range of the factor on all values.
        tint: range of the factor of each channel.
    """

    crop: tuple[int, int] = (416, 544)
    rotate: float = 0.5
    rotation: float = 2.5
    flip: float = 0.5
    recolour: float = 0.5
    gamma: Range = (0.9, 1.1)
    brightness: Range = (0.75, 1.25)
    tint: Range = (0.9, 1.1)


def short_side_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """(height, width) of the same proportions with the given shorter side."""
    height, width = size
    if height > width:
        return int(short_side * height / width + 0.5), short_side
    return short_side, int(short_side * width / height + 0.5)


def segmentation_view(
    picture: Tensor,
    mask: Tensor,
    views: SegmentationViews,
    window: tuple[int, int],
    ignore: int,
    fill: Tensor,
    *keys: Key,
) -> tuple[Tensor, Tensor]:
    """A view for segmentation: random scale, crop, mirroring, photometric distortion, padding at the bottom and right.

    Args:
        picture: uint8 [3, H, W].
        mask: integers [H', W'], over the whole picture at any size.
        views: what may be drawn.
        window: (height, width) of the view.
        ignore: label that counts for nothing; that of the padding.
        fill: colour [3] of the padding, in [0, 1].
        keys: name the draw.

    Returns:
        uint8 [3, *window] and the mask [*window] of the mask's type.
    """
    draws = numpy_generator("segmentation view", *keys)
    whole = short_side_size((picture.shape[1], picture.shape[2]), int(views.short_side * draws.uniform(*views.scale)))
    place = _random_place(whole, window, draws)
    cut = _nearest(mask, whole, place, window)
    for _ in range(CROP_TRIES):
        if _is_varied(cut, ignore, views.largest_share):
            break
        place = _random_place(whole, window, draws)
        cut = _nearest(mask, whole, place, window)
    top, left = place
    view = resized_image(picture, whole)[:, top : top + window[0], left : left + window[1]]
    if draws.random() < views.flip:
        view, cut = view.flip(2), cut.flip(1)
    view = _distorted(view, views, draws)
    return _padded(view, window, (fill * 255).round()), _padded(cut, window, torch.tensor([ignore]))


def depth_view(
    picture: Tensor,
    depth: Tensor,
    views: DepthViews,
    window: tuple[int, int],
    box: tuple[int, int, int, int] | None,
    fill: Tensor,
    *keys: Key,
) -> tuple[Tensor, Tensor]:
    """A view for depth: fixed box, random rotation, mirroring, crop, gamma, brightness and tint.

    Args:
        picture: uint8 [3, H, W].
        depth: metres [H', W'], 0 where there is no measurement; taken to the picture's size by nearest neighbour.
        views: what may be drawn.
        window: (height, width) of the view; a smaller picture is padded, without depth there.
        box: (left, top, right, bottom) in pixels of the picture that views are cut from; None for all of it.
        fill: colour [3] of the padding, in [0, 1].
        keys: name the draw.

    Returns:
        uint8 [3, *window] and metres [*window]; 0 where a rotation brought nothing in.
    """
    draws = numpy_generator("depth view", *keys)
    size = (picture.shape[1], picture.shape[2])
    depth = _nearest(depth, size, (0, 0), size)
    left, top, right, bottom = box or (0, 0, size[1], size[0])
    picture, depth = picture[:, top:bottom, left:right], depth[top:bottom, left:right]
    if draws.random() < views.rotate:
        angle = float(draws.uniform(-views.rotation, views.rotation))
        picture = transforms.rotate(picture, angle, InterpolationMode.BILINEAR)
        depth = transforms.rotate(depth[None], angle, InterpolationMode.NEAREST)[0]
    if draws.random() < views.flip:
        picture, depth = picture.flip(2), depth.flip(1)
    top, left = _random_place((picture.shape[1], picture.shape[2]), window, draws)
    picture, depth = (values[..., top : top + window[0], left : left + window[1]] for values in (picture, depth))
    picture = _recoloured(picture, views, draws)
    return _padded(picture, window, (fill * 255).round()), _padded(depth, window, torch.zeros(1))


def _random_place(size: tuple[int, int], window: tuple[int, int], draws: np.random.Generator) -> tuple[int, int]:
    """Top left corner of a crop; 0 along a side that is shorter than the window."""
    top, left = (int(draws.integers(max(side - wanted, 0) + 1)) for side, wanted in zip(size, window, strict=True))
    return top, left


def _nearest(label: Tensor, whole: tuple[int, int], place: tuple[int, int], window: tuple[int, int]) -> Tensor:
    """The part of a label map [H, W], resized to `whole` by nearest neighbour, that a window at `place` shows."""
    index = []
    for side, full, start, length in zip(label.shape, whole, place, window, strict=True):
        shown = torch.arange(start, min(start + length, full))
        index.append(((shown + 0.5) * side / full).long().clamp(max=side - 1))
    return label[index[0][:, None], index[1]]


def _is_varied(mask: Tensor, ignore: int, largest_share: float) -> bool:
    """Whether a crop shows several classes and none covers too much of it."""
    if largest_share >= 1:
        return True
    counts = mask[mask != ignore].unique(return_counts=True)[1]
    return len(counts) > 1 and float(counts.max() / counts.sum()) < largest_share


def _padded(values: Tensor, window: tuple[int, int], fill: Tensor) -> Tensor:
    """A crop [..., h, w] brought to the window's size at the bottom and right; `fill` per channel."""
    height, width = values.shape[-2:]
    if (height, width) == window:
        return values.contiguous()
    shape = (*values.shape[:-2], *window)
    canvas = (fill[:, None, None] if values.ndim == 3 else fill).to(values.dtype).expand(shape).clone()
    canvas[..., :height, :width] = values
    return canvas


def _distorted(picture: Tensor, views: SegmentationViews, draws: np.random.Generator) -> Tensor:
    """Photometric distortion of a uint8 picture: brightness, contrast, saturation, hue, each with its probability."""

    def contrast(image: Tensor) -> Tensor:
        return _as_bytes(image.float() * float(draws.uniform(*views.contrast)))

    changes: list[Callable[[Tensor], Tensor]] = [
        lambda image: transforms.adjust_saturation(image, float(draws.uniform(*views.saturation))),
        lambda image: transforms.adjust_hue(image, float(draws.uniform(*views.hue))),
    ]
    changes.insert(0 if draws.random() < 0.5 else 2, contrast)
    changes.insert(0, lambda image: _as_bytes(image.float() + float(draws.uniform(-1, 1)) * views.brightness))
    for change in changes:
        if draws.random() < views.distortion:
            picture = change(picture)
    return picture


def _recoloured(picture: Tensor, views: DepthViews, draws: np.random.Generator) -> Tensor:
    """Gamma, brightness and tint of a uint8 picture, together or not at all."""
    if draws.random() >= views.recolour:
        return picture
    gamma, brightness = draws.uniform(*views.gamma), draws.uniform(*views.brightness)
    tint = torch.from_numpy(draws.uniform(*views.tint, size=3)).float()[:, None, None]
    return _as_bytes((picture.float() ** float(gamma) * float(brightness) * tint).round())


def _as_bytes(values: Tensor) -> Tensor:
    return values.clamp(0, 255).to(torch.uint8)
