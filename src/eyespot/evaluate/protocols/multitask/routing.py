"""How a multi-task model's routers mix its experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import Tensor

from eyespot.encoders.base import Encoder
from eyespot.encoders.multitask import MultiTaskEncoder
from eyespot.encoders.multitask.model import STEM
from eyespot.evaluate.extraction import eval_mode
from eyespot.evaluate.protocols.multitask.protocol import padded


def has_routers(model: Encoder) -> TypeGuard[MultiTaskEncoder]:
    """Whether a model mixes by routers, which one kind alone has: there are some, and at least one path is on."""
    return isinstance(model, MultiTaskEncoder) and len(model.routers) > 0 and len(model.active) > 0


def expert_names(model: MultiTaskEncoder) -> list[str]:
    """Names of the experts, in the order of the weights: the stem, then the paths that are on."""
    return [STEM, *model.active]


@torch.no_grad()
def router_weights(model: Encoder, pictures: Sequence[Tensor]) -> Tensor:
    """The routers' weights without noise, mean over pictures: float32 [levels, tasks, experts] on the CPU.

    Tasks are in the model's order, experts in that of `expert_names`; along the experts the weights add up to 1.

    Args:
        model: a multi-task model; runs in eval mode where it is.
        pictures: each uint8 [3, H, W], taken as in `predicted`.

    Raises:
        ValueError: a model without routers, or no picture.
    """
    if not has_routers(model) or not pictures:
        raise ValueError(f"{model.name} needs routers, a path that is on and at least one picture to have weights")
    with eval_mode(model):
        seen = [model.look(padded(model, picture)[0]) for picture in pictures]
        weights = [[torch.cat(model.weights(levels, task)) for task in model.tasks] for levels in seen]
    means = torch.stack([torch.stack(of_picture) for of_picture in weights]).float().mean(0)  # [tasks, levels, experts]
    return means.transpose(0, 1).cpu()
