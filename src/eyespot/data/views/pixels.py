"""What is done to the bytes of a view: resizing, an affine change of colours, blur, solarisation.

Sums here are exact, in integers or in floats that hold them without rounding. So a view has the same bytes on every
machine and in every process, whatever the instructions and however many the threads.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

_FLOAT_BITS = 24
"""float32 holds whole numbers up to 2 to the power of this."""
_LARGEST_BYTES = np.array([255.0, 255.0, 255.0, 1.0])
_WHOLE_BITS = 8
"""The weights of a blur are whole numbers that make 2 to the power of this: 16 bits hold a weighted sum of bytes."""
_REACH = 4.0
"""Where a blur is cut off at the latest, in standard deviations: weights are below 1 / 512 long before."""


def resized(picture: Image.Image, size: int) -> np.ndarray:
    """A picture at `size` x `size`, uint8 [size, size, 3], bicubic with antialiasing.

    As by Pillow, to a level or two, in a small part of the time.
    """
    pixels = torch.from_numpy(np.array(picture))[None].permute(0, 3, 1, 2)  # in this order the kernel copies nothing
    seen = F.interpolate(pixels, size=(size, size), mode="bicubic", antialias=True)
    return seen[0].permute(1, 2, 0).numpy()


def channel_means(planes: np.ndarray) -> np.ndarray:
    """Mean of each channel of uint8 [C, H, W]."""
    count = planes[0].size
    return planes.reshape(len(planes), -1).sum(axis=1, dtype=np.uint32 if count < 2**24 else np.uint64) / count


def recoloured(planes: np.ndarray, matrix: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """`matrix @ colour + offset` for the colour of each pixel, rounded and clipped to bytes.

    Args:
        planes: uint8 [3, H, W].
        matrix: [3, 3]; it is rounded so far that sums of products with bytes are exact in float32, which changes
            results by a hundredth of a level.
        offset: [3], in levels; likewise.
    """
    rows = np.concatenate([matrix, offset[:, None] + 0.5], axis=1)
    largest = float((np.abs(rows) @ _LARGEST_BYTES).max())
    steps = 2.0 ** (_FLOAT_BITS - math.frexp(largest)[1])
    exact = torch.from_numpy(np.rint(rows * steps) / steps).float()
    colours = torch.from_numpy(planes).float().view(3, -1)
    with torch.autocast("cpu", enabled=False):  # who asks for pictures may be in the middle of a pass in bfloat16
        values = torch.addmm(exact[:, 3:], exact[:, :3], colours).clamp_(0, 255)
    return values.numpy().astype(np.uint8).reshape(planes.shape)  # cuts off after the 0.5; NumPy's cast is the fast one


def blurred(planes: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian blur in two passes, each rounded to bytes; beyond an edge its pixels go on.

    Args:
        planes: uint8 [C, S, S].
        sigma: standard deviation in pixels.
    """
    weights = blur_weights(sigma)
    reach = len(weights) - 1
    if reach == 0:
        return planes
    padded = _with_margins(planes, reach)
    # One long row: a pixel's neighbour below is one line further. Sums across the ends of lines lie in the margins.
    pixels, line = padded.reshape(-1), padded.shape[2]
    for step in (line, 1):
        first, last = reach * step, len(pixels) - reach * step
        total = pixels * weights[0]
        inner = total[first:last]
        for away in range(step, first + 1, step):
            pair = pixels[first - away : last - away] + pixels[first + away : last + away]
            pair *= weights[away // step]
            inner += pair
        total += 1 << _WHOLE_BITS - 1
        total >>= _WHOLE_BITS
        pixels = total
    inside = slice(reach, -reach)
    return pixels.reshape(padded.shape)[:, inside, inside].astype(np.uint8)


def blur_weights(sigma: float) -> list[int]:
    """Weights of a pixel and of those at distance 1, 2, ... on either side, which make 256 together.

    They are rounded together, not one by one, so that a wide blur keeps its shape.
    """
    bell = [math.exp(-0.5 * (away / sigma) ** 2) for away in range(math.ceil(_REACH * sigma) + 1)]
    scale = 2**_WHOLE_BITS / (2 * sum(bell) - bell[0])
    ends = [round(scale * total) for total in itertools.accumulate(bell[1:])]
    sides = [end - before for before, end in itertools.pairwise([0, *ends])]
    while sides and not sides[-1]:
        sides.pop()
    return [2**_WHOLE_BITS - 2 * sum(sides), *sides]


def _with_margins(planes: np.ndarray, width: int) -> np.ndarray:
    """uint16 [C, S + 2 width, S + 2 width]: the pixels at the edges go on."""
    channels, height, breadth = planes.shape
    inside = slice(width, -width)
    padded = np.empty((channels, height + 2 * width, breadth + 2 * width), np.uint16)
    padded[:, inside, inside] = planes
    padded[:, :width, inside], padded[:, -width:, inside] = planes[:, :1], planes[:, -1:]
    padded[:, :, :width] = padded[:, :, width : width + 1]
    padded[:, :, -width:] = padded[:, :, -width - 1 : -width]
    return padded


def solarized(planes: np.ndarray) -> np.ndarray:
    """Bytes from 128 on inverted."""
    return np.minimum(planes, ~planes)
