"""Linear maps from patches to what is asked of every pixel, and their answers at the size of the labels.

Nothing here copies a whole feature map or label set: predictions are made picture by picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyespot.data.labelled.base import LabelMaps
from eyespot.randomness import torch_generator

STRIP = 1 << 24  # numbers in an upsampled strip: 64 MB


class LinearMap(nn.Module):
    """Centred patches through a 1x1 convolution: what a quick probe has found.

    Args:
        mean: [D], taken off first, so that large common values cost no digits.
        weight: [K, D].
        bias: [K].
        bounds: smallest and largest output.
    """

    mean: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(
        self, mean: Tensor, weight: Tensor, bias: Tensor, bounds: tuple[float, float] = (-math.inf, math.inf)
    ) -> None:
        super().__init__()
        for name, value in (("mean", mean), ("weight", weight), ("bias", bias)):
            self.register_buffer(name, value)
        self.bounds = bounds

    def forward(self, patches: Tensor) -> Tensor:
        """[b, D, h, w] patches to [b, K, h, w]."""
        centred = patches.flatten(2) - self.mean[:, None]
        found = (self.weight @ centred + self.bias[:, None]).unflatten(2, patches.shape[2:])
        return found.clamp(*self.bounds)


def linear_head(channels: int, outputs: int, seed: int) -> nn.Sequential:
    """The head of the published protocols: batch norm, then a 1x1 convolution.

    Its weights are from N(0, 0.01), drawn by `seed`; its bias is 0.
    """
    # Without torch's own initial weights, which would be drawn from the global generator that a training may be using.
    convolution = nn.utils.skip_init(nn.Conv2d, channels, outputs, 1)
    nn.init.normal_(convolution.weight, std=0.01, generator=torch_generator(seed, "probe weights"))
    nn.init.zeros_(convolution.bias)
    return nn.Sequential(nn.BatchNorm2d(channels), convolution)


def sample(maps: Tensor, positions: Tensor) -> Tensor:
    """Bilinear values [b, K, P] of maps [b, K, h, w] at `positions` [b, P, 2] in [-1, 1].

    At pixel centres this equals `interpolate(..., mode="bilinear", align_corners=False)`.
    """
    found = F.grid_sample(maps, positions[:, None], mode="bilinear", padding_mode="border", align_corners=False)
    return found[:, :, 0]


@torch.inference_mode()
def predictions(
    head: nn.Module, patches: Tensor, labels: LabelMaps, batch_size: int = 16
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields, picture by picture, the output [K, h, w] and the label, whose size is its own."""
    for start in range(0, len(patches), batch_size):
        for offset, output in enumerate(head(patches[start : start + batch_size].float())):
            yield output, labels[start + offset]


def upsampled(output: Tensor, size: tuple[int, int]) -> Tensor:
    """Output [K, h, w] at another size, bilinearly."""
    return F.interpolate(output[None], size=size, mode="bilinear", align_corners=False)[0]


def class_map(output: Tensor, size: tuple[int, int]) -> Tensor:
    """The classes [H, W] with the largest of the scores [K, h, w], which are upsampled bilinearly to `size`.

    Strip by strip: 150 classes at the size of a large photograph would take gigabytes at once.
    """
    wide = upsampled(output, (output.shape[1], size[1]))
    rows = ((torch.arange(size[0], device=output.device) + 0.5) * output.shape[1] / size[0] - 0.5).clamp(min=0)
    above = rows.long()
    below = (above + 1).clamp(max=output.shape[1] - 1)
    share = (rows - above)[:, None]
    found = []
    for strip in torch.arange(size[0], device=output.device).split(max(1, STRIP // wide[:, 0].numel())):
        found.append(torch.lerp(wide[:, above[strip]], wide[:, below[strip]], share[strip]).argmax(dim=0))
    return torch.cat(found)
