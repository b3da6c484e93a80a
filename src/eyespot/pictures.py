"""Batches of pictures as numbers: what everybody does to them before a network sees them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

ImageSize = tuple[int, int]
"""(height, width) in pixels."""


def as_unit_floats(images: Tensor) -> Tensor:
    """uint8 pictures as floats in [0, 1]; floats unchanged."""
    return images if images.is_floating_point() else images.float().div_(255)


def resize_pictures(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures [B, 3, H, W] in [0, 1] at another size: bilinear with antialiasing, which cannot leave [0, 1]."""
    if images.shape[2:] == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)
