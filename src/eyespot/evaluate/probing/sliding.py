"""Sliding windows: outputs for a picture of any size from an encoder that sees one window at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from eyespot.evaluate.probing.probe import upsampled

AT_ONCE = 16  # windows per forward pass


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along a side: every `stride` pixels, the last one pushed back so that it ends at the border.

    Raises:
        ValueError: the window is longer than the side, or the stride is not in [1, window].
    """
    if window > length or not 1 <= stride <= window:
        raise ValueError(f"windows of {window} every {stride} pixels do not cover a side of {length}")
    return [*range(0, length - window, stride), length - window]


@torch.inference_mode()
def sliding_map(
    predict: Callable[[Tensor], Tensor],
    picture: Tensor,
    window: tuple[int, int],
    stride: tuple[int, int],
    fill: Tensor,
) -> Tensor:
    """The output for a whole picture: the mean over all windows that show a place (EUPE's and DINOv3's evaluation).

    Args:
        predict: windows [n, 3, *window] to outputs [n, K, h, w], which are upsampled bilinearly to the window.
        picture: [3, H, W] in [0, 1]. Where it is smaller than the window it is framed centrally with `fill`, and the
            frame is cut off the output.
        window: (height, width).
        stride: steps between windows along height and width.
        fill: colour [3] of the frame.

    Returns:
        [K, H, W]
    """
    height, width = picture.shape[1:]
    framed, top, left = _framed(picture, window, fill)
    rows, columns = (window_starts(*side) for side in zip(framed.shape[1:], window, stride, strict=True))
    places = [(y, x) for y in rows for x in columns]
    total, count = picture.new_zeros(()), picture.new_zeros(framed.shape[1:])
    for first in range(0, len(places), AT_ONCE):
        chunk = places[first : first + AT_ONCE]
        outputs = predict(torch.stack([framed[:, y : y + window[0], x : x + window[1]] for y, x in chunk]))
        if total.ndim == 0:
            total = outputs.new_zeros(outputs.shape[1], *framed.shape[1:])
        for (y, x), output in zip(chunk, outputs, strict=True):
            total[:, y : y + window[0], x : x + window[1]] += upsampled(output, window)
            count[y : y + window[0], x : x + window[1]] += 1
    return total.div_(count)[:, top : top + height, left : left + width]


def _framed(picture: Tensor, window: tuple[int, int], fill: Tensor) -> tuple[Tensor, int, int]:
    """The picture in the middle of a canvas that is at least as large as the window; where its top left corner is."""
    height, width = picture.shape[1:]
    size = (max(height, window[0]), max(width, window[1]))
    if size == (height, width):
        return picture, 0, 0
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    canvas = fill.to(picture)[:, None, None].repeat(1, *size)
    canvas[:, top : top + height, left : left + width] = picture
    return canvas, top, left
