"""The quick linear probe of the dense tasks: batch norm and one 1x1 convolution on patches that were extracted once.

Nothing here copies a whole feature map or label set: a step takes its few pictures out of the (memory-mapped) features
and reads their labels, one step ahead of the training, and predictions are made picture by picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyespot.data.labelled.base import LabelMaps
from eyespot.evaluate.probing.background import prepared
from eyespot.randomness import torch_generator

STRIP = 1 << 24  # numbers in an upsampled strip: 64 MB


@dataclass(frozen=True)
class ProbeConfig:
    """How a probe is trained.

    Attributes:
        steps: optimiser steps.
        batch_size: pictures per step.
        learning_rate: peak; linear warm-up, then cosine to 0.
        weight_decay: of AdamW.
        betas: of AdamW.
        warmup: share of the steps.
        points: labelled pixels drawn per picture and step.
        clip: largest gradient norm, None for no clipping.
    """

    steps: int = 300
    batch_size: int = 16
    learning_rate: float = 1e-2
    weight_decay: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: float = 0.05
    points: int = 1024
    clip: float | None = None


def linear_head(channels: int, outputs: int, seed: int) -> nn.Sequential:
    """Batch norm, then a 1x1 convolution with weights from N(0, 0.01) and bias 0, drawn by `seed`."""
    # Without torch's own initial weights, which would be drawn from the global generator that a training may be using.
    convolution = nn.utils.skip_init(nn.Conv2d, channels, outputs, 1)
    nn.init.normal_(convolution.weight, std=0.01, generator=torch_generator(seed, "probe weights"))
    nn.init.zeros_(convolution.bias)
    return nn.Sequential(nn.BatchNorm2d(channels), convolution)


def train_probe(
    head: nn.Module,
    patches: Tensor,
    labels: LabelMaps,
    loss: Callable[[Tensor, Tensor], Tensor],
    config: ProbeConfig,
    seed: int,
) -> None:
    """Trains `head` in place; leaves it in eval mode.

    The loss of a step is taken at pixels drawn at random, where the output is interpolated bilinearly, instead of at
    every pixel of the upsampled output: an estimate of the same loss, at a cost that does not grow with the labels.

    Args:
        head: [b, D, h, w] patches to an output map [b, K, h, w].
        patches: [N, D, h, w], any floating type.
        labels: N maps [H, W] or [C, H, W] at their own sizes.
        loss: of outputs [b, K, P] and labels [b, P] or [b, C, P] at P pixels of each picture; a scalar.
        config: the schedule.
        seed: names all draws.

    Raises:
        FloatingPointError: the loss became NaN or infinite.
    """
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share_of_peak(step, config))
    generator = torch_generator(seed, "probe batches")
    batches = _endless_batches(len(patches), config.batch_size, generator)

    def batch(step: int) -> tuple[Tensor, Tensor, Tensor]:
        chosen = next(batches)
        points = draw_points([labels[int(index)] for index in chosen], config.points, generator)
        return patches[chosen].float(), *points

    head.train()
    value = torch.zeros(())
    # One worker: the draws of a step follow those of the step before.
    for inputs, positions, truth in prepared(batch, config.steps, workers=1):
        value = loss(sample(head(inputs), positions), truth)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        if config.clip is not None:
            nn.utils.clip_grad_norm_(head.parameters(), config.clip)
        optimizer.step()
        schedule.step()
    if not value.isfinite():
        raise FloatingPointError(f"the probe's loss became {value.item()}; lower its learning rate")
    head.eval()


def _share_of_peak(step: int, config: ProbeConfig) -> float:
    warmup = max(1, round(config.warmup * config.steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, config.steps - warmup)))


def _endless_batches(count: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Full batches from one shuffling after the other, so that every picture comes equally often."""
    pool = torch.empty(0, dtype=torch.int64)
    while True:
        while len(pool) < min(batch_size, count):
            pool = torch.cat([pool, torch.randperm(count, generator=generator)])
        batch, pool = pool[:batch_size], pool[batch_size:]
        yield batch


def draw_points(labels: LabelMaps, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random pixels of each label map.

    Returns:
        positions [b, count, 2], (x, y) in [-1, 1] as `grid_sample` takes them, and the labels there [b, count], or
        [b, C, count] from maps [C, H, W].
    """
    positions, values = [], []
    for label in labels:
        height, width = label.shape[-2:]
        index = torch.randint(height * width, (count,), generator=generator)
        x, y = (index % width + 0.5) / width, (index // width + 0.5) / height
        positions.append(torch.stack([x, y], dim=1) * 2 - 1)
        values.append(label.flatten(-2)[..., index])
    return torch.stack(positions), torch.stack(values)


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
