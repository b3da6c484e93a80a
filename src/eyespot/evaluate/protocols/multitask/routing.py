"""How a multi-task model's routers mix its experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from eyespot.encoders.base import Encoder
from eyespot.evaluate.extraction import eval_mode
from eyespot.evaluate.protocols.multitask.protocol import padded


def has_routers(model: Encoder) -> bool:
    """Whether a model mixes by routers: it has some, and at least one path is on."""
    return bool(getattr(model, "routers", ())) and bool(getattr(model, "active", ()))


def expert_names(model: Encoder) -> list[str]:
    """Names of the experts, in the order of the weights: the stem, then the paths that are on."""
    active: Any = getattr(model, "active", ())
    return ["stem", *active]


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
    routed: Any = model
    with eval_mode(model):
        seen = [routed.look(padded(model, picture)[0]) for picture in pictures]
        weights = [[torch.cat(routed.weights(levels, task)) for task in routed.tasks] for levels in seen]
    means = torch.stack([torch.stack(of_picture) for of_picture in weights]).float().mean(0)  # [tasks, levels, experts]
    return means.transpose(0, 1).cpu()
