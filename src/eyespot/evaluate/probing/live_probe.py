"""Training a head on live features: every step sees new views of the pictures, as the published dense probes do."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyespot.data.labelled.base import DensePictures
from eyespot.encoders.base import Encoder
from eyespot.evaluate.extraction import eval_mode
from eyespot.evaluate.probing.background import prepared
from eyespot.randomness import numpy_generator, seed_of
from eyespot.specs import lookup

_Config = TypeVar("_Config")
_Found = TypeVar("_Found")
ONCE_QUICK = {"steps", "batch_size", "learning_rate"}
"""Options of the quick schedule too, before it chose for itself."""
CHECK_EVERY = 50  # steps between looks at the loss, each of which waits for the accelerator


@dataclass(frozen=True)
class LiveConfig:
    """How a head is trained on live features. Shares of the steps shrink and grow with them.

    Attributes:
        steps: optimiser steps.
        batch_size: pictures per step.
        learning_rate: peak.
        weight_decay: of AdamW.
        betas: of AdamW.
        warmup: share of the steps over which the rate rises linearly, on top of a cosine over all steps down to 0.
        beta1_cycle: beta1 runs along a cosine from the first to the second after the warm-up and is 0 within it, as in
            the official depth scheduler; None keeps `betas`.
        clip: largest gradient norm, None for no clipping.
        train_mode: keep the frozen backbone in train mode.
        train_mode_share: for this share of the steps, from the start.
        workers: threads that prepare views; they change no number.
    """

    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    betas: tuple[float, float]
    warmup: float
    beta1_cycle: tuple[float, float] | None = None
    clip: float | None = None
    train_mode: bool = False
    train_mode_share: float = 1.0
    workers: int = 8

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        warm = min(1.0, (step + 1) / max(1.0, self.warmup * self.steps))
        return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / self.steps))

    def beta1(self, step: int) -> float:
        """First beta of AdamW in a step."""
        if self.beta1_cycle is None:
            return self.betas[0]
        first = self.warmup * self.steps
        if step < first:
            return 0.0
        low, high = self.beta1_cycle
        return high + (low - high) * 0.5 * (1 + math.cos(math.pi * (step - first) / (self.steps - first)))


def changed(config: _Config, **options: Any) -> _Config:
    """A protocol's configuration with the options that a user gave; None and False were not given."""
    return dataclasses.replace(config, **_given(options))  # type: ignore[type-var]


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None and value is not False}


def run_schedule(
    name: str,
    given: Sequence[Any],
    options: Mapping[str, Any],
    *,
    quick: Callable[..., _Found],
    published: tuple[Callable[..., _Found], Any],
) -> _Found:
    """What a protocol finds by one of its schedules.

    Args:
        name: "quick" or "published".
        given: encoder, data, seed.
        options: of the published configuration, see `changed`; the quick probe chooses for itself.
        quick: a function of what is given.
        published: a function of what is given and a configuration, and the configuration.

    Raises:
        ValueError: there is no such schedule, or it does not have such an option.

    Warns:
        UserWarning: options that the quick probe took once, and that are of the published schedule now.
    """
    if lookup({"quick": True, "published": False}, name, "schedule"):
        given_too = _given(options).keys()
        strange, without_effect = sorted(given_too - ONCE_QUICK), sorted(given_too & ONCE_QUICK)
        if strange:
            raise ValueError(f"{', '.join(strange)}: only for schedule=published; the quick probe chooses for itself")
        if without_effect:
            warnings.warn(
                f"{', '.join(without_effect)}: without effect, the quick probe chooses for itself; schedule=published "
                "takes them",
                stacklevel=3,
            )
        return quick(*given)
    function, config = published
    return function(*given, changed(config, **options))


def epoch_indices(count: int, batch_size: int, step: int, seed: int) -> list[int]:
    """The pictures of a step, out of one shuffling after the other; a pure function of its arguments."""
    places = range(step * batch_size, (step + 1) * batch_size)
    return [int(_shuffled(count, seed, place // count)[place % count]) for place in places]


def views_of_step(
    split: DensePictures,
    batch_size: int,
    seed: int,
    step: int,
    view: Callable[[Tensor, Tensor, int, int], tuple[Tensor, Tensor]],
) -> tuple[Tensor, Tensor]:
    """Views [b, 3, h, w] and label maps [b, h, w] of a step.

    Args:
        split: pictures and label maps.
        batch_size: b.
        seed: of the order.
        step: which.
        view: (picture, label map, step, place in the batch) -> one view of both.
    """
    chosen = enumerate(epoch_indices(len(split.pictures), batch_size, step, seed))
    views = [view(split.pictures.original(index), split.labels[index], step, place) for place, index in chosen]
    images, labels = zip(*views, strict=True)
    return torch.stack(images), torch.stack(labels)


@lru_cache(maxsize=4)
def _shuffled(count: int, seed: int, epoch: int) -> np.ndarray:
    return numpy_generator(seed, "live probe", "order", epoch).permutation(count)


def train_live(
    encoder: Encoder,
    head: nn.Module,
    batch: Callable[[int], tuple[Tensor, Tensor]],
    loss: Callable[[Tensor, Tensor, int], Tensor],
    config: LiveConfig,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Trains `head` in place, where the encoder is; leaves it in eval mode. Weights and statistics of the encoder stay.

    Args:
        encoder: frozen.
        head: [b, D, h, w] patches to an output map [b, K, h, w], which is upsampled bilinearly to the labels.
        batch: step -> views, uint8 [b, 3, H, W], and their labels [b, H, W]; called in threads, so a pure function.
        loss: of outputs [b, K, H, W], labels and step; a scalar.
        config: the schedule.
        seed: names all draws.
        progress: called with (steps done, steps in all).

    Raises:
        FloatingPointError: the loss became NaN or infinite.
    """
    device = encoder.device
    head.to(device).train()
    optimizer = torch.optim.AdamW(
        head.parameters(), config.learning_rate, config.betas, weight_decay=config.weight_decay
    )
    until = config.train_mode_share * config.steps if config.train_mode else 0
    with eval_mode(encoder), torch.random.fork_rng(devices=[] if device.type == "cpu" else [device]):
        for step, (views, labels) in enumerate(prepared(batch, config.steps, config.workers)):
            if step == 0 and until > 0:
                _train_mode(encoder)
            if step - 1 < until <= step:
                encoder.eval()
            torch.manual_seed(seed_of(seed, "live probe", "step", step))
            with torch.no_grad():
                patches = encoder(views.to(device).float() / 255).patches.float()
                if step == 0 and until > 0:
                    _warn_if_alike(encoder, views.to(device).float() / 255, patches)
            labels = labels.to(device)
            output = F.interpolate(head(patches), size=labels.shape[-2:], mode="bilinear", align_corners=False)
            value = loss(output, labels, step)
            _take_step(optimizer, value, head, config, step)
            if step % CHECK_EVERY == 0 or step == config.steps - 1:
                _check_finite(value)
            if progress is not None:
                progress(step + 1, config.steps)
    head.eval()


def _take_step(optimizer: torch.optim.Optimizer, value: Tensor, head: nn.Module, config: LiveConfig, step: int) -> None:
    for group in optimizer.param_groups:
        group["lr"], group["betas"] = config.rate(step), (config.beta1(step), config.betas[1])
    optimizer.zero_grad(set_to_none=True)
    value.backward()
    if config.clip is not None:
        nn.utils.clip_grad_norm_(head.parameters(), config.clip)
    optimizer.step()


def _check_finite(value: Tensor) -> None:
    if not value.isfinite():
        raise FloatingPointError(f"the probe's loss became {value.item()}; lower its learning rate")


def _train_mode(encoder: Encoder) -> None:
    """Train mode, but for what keeps running statistics (batch norm), which would learn."""
    encoder.train()
    for module in encoder.modules():
        if getattr(module, "running_mean", None) is not None:
            module.eval()


@torch.no_grad()
def _warn_if_alike(encoder: Encoder, images: Tensor, patches: Tensor) -> None:
    if torch.equal(encoder(images).patches.float(), patches):
        warnings.warn(
            f"{encoder.name} draws nothing at random in train mode, so train_mode=true changes nothing. timm's DINOv3 "
            "and EUPE models rescale their position coordinates only if they were built with rope_rescale_coords=2",
            stacklevel=3,
        )
