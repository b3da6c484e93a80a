"""Maps of the dense tasks as pictures: semantic classes, depth, surface normals, boundaries, heat."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot.dense_tasks import IGNORE
from eyespot.report.drawing.colours import UNKNOWN, class_colours, in_colours, stops
from eyespot.report.exhibits.figures import PICTURE_SIDE, Scale, as_bytes

_NEAR_TO_FAR = "magma_r"
_HEAT = "magma"
_MOST_VALUES = 1_000_000
_TOWARDS = torch.tensor([1.0, -1.0, -1.0])[:, None, None]  # the camera's y points down, its z away

Paint = Callable[[Tensor, Tensor], Tensor]
"""A map [..., h, w] and its picture, uint8 [3, H, W], to a picture of that size."""


def class_painter(truths: Sequence[Tensor], classes: int, ignore: int) -> Paint:
    """Semantic classes in colours over the picture in grey, with dark borders.

    The most distinct colours go to the classes that cover most of the true maps [H, W].
    """

    def known(found: Tensor) -> Tensor:
        return (found != ignore) & (found >= 0) & (found < classes)

    pixels = torch.cat([truth[known(truth)].long() for truth in truths])
    order = torch.bincount(pixels, minlength=classes).argsort(descending=True, stable=True)
    colours = torch.empty(classes, 3)
    colours[order] = class_colours(classes)

    def paint(found: Tensor, photo: Tensor) -> Tensor:
        labelled = known(found)
        painted = torch.where(labelled, colours[torch.where(labelled, found, 0).long()].permute(2, 0, 1), UNKNOWN)
        mixed = 0.3 * photo.float().mean(dim=0) / 255 + 0.7 * painted
        return as_bytes(torch.where(borders(found), 0.1, mixed))

    return paint


def depth_painter(truths: Sequence[Tensor], low: float, high: float) -> tuple[Paint, Scale]:
    """Depth in colours, one scale for all that covers the true maps [H, W].

    Args:
        truths: metres, 0 where nothing is measured.
        low: start of the scale in metres, where nothing at all is measured.
        high: its end.
    """
    known = torch.cat([truth[truth > 0].float() for truth in truths])
    known = known[:: max(1, len(known) // _MOST_VALUES)]
    if len(known):
        low, high = (float(level) for level in torch.quantile(known, torch.tensor([0.02, 0.98])))

    def paint(metres: Tensor, photo: Tensor) -> Tensor:
        return as_bytes(in_colours(metres.masked_fill(metres <= 0, torch.nan), low, high, _NEAR_TO_FAR))

    return paint, Scale(f"{low:.1f} m", f"{high:.1f} m", stops(_NEAR_TO_FAR))


def paint_normals(vectors: Tensor, photo: Tensor) -> Tensor:
    """Unit vectors [3, H, W] as colours: right is red, up is green, towards the camera is blue."""
    return as_bytes(torch.where((vectors != 0).any(dim=0), (vectors * _TOWARDS + 1) / 2, UNKNOWN))


def paint_boundaries(shares: Tensor, photo: Tensor) -> Tensor:
    """Values [H, W] from 0, white, to 1, black; NaN (not labelled) is grey."""
    return as_bytes((1 - shares).nan_to_num(UNKNOWN).expand(3, -1, -1))


def paint_heat(shares: Tensor, photo: Tensor) -> Tensor:
    """Values [H, W] from 0, dark, to 1, bright, over the picture in grey; NaN (not labelled) is grey."""
    return as_bytes(0.35 * photo.float().mean(dim=0) / 255 + 0.65 * in_colours(shares, 0, 1, _HEAT))


HEAT_SCALE = Scale("0", "1", stops(_HEAT))


def known_shares(label: Tensor) -> Tensor:
    """A map of 0, 1 and `IGNORE` as float32, NaN where it is not labelled."""
    return label.float().masked_fill(label == IGNORE, torch.nan)


def small(label: Tensor) -> Tensor:
    """A map [..., H, W] whose longer side is at most that of a picture on the page."""
    size = _small_size(label)
    return label if size == tuple(label.shape[-2:]) else resized_nearest(label, size)


def small_lines(shares: Tensor) -> Tensor:
    """The same for float maps [H, W] of thin lines, which must not get lost: by maximum."""
    return F.adaptive_max_pool2d(shares[None], _small_size(shares))[0]


def _small_size(label: Tensor) -> tuple[int, int]:
    factor = min(1.0, PICTURE_SIDE / max(label.shape[-2:]))
    return max(1, round(label.shape[-2] * factor)), max(1, round(label.shape[-1] * factor))


def at(label: Tensor, photo: Tensor) -> Tensor:
    """A map at the size of a picture [3, H, W]."""
    return resized_nearest(label, (photo.shape[1], photo.shape[2]))


def resized_nearest(label: Tensor, size: tuple[int, int]) -> Tensor:
    """A map [..., H, W] at another size, each pixel that of the nearest centre."""
    sides = zip(label.shape[-2:], size, strict=True)
    rows, columns = (((torch.arange(wanted) + 0.5) * side / wanted).long() for side, wanted in sides)
    return label[..., rows[:, None], columns]


def borders(classes: Tensor) -> Tensor:
    """Where a map [H, W] differs from its right or lower neighbour."""
    found = torch.zeros_like(classes, dtype=torch.bool)
    found[:, :-1] |= classes[:, :-1] != classes[:, 1:]
    found[:-1] |= classes[:-1] != classes[1:]
    return found
