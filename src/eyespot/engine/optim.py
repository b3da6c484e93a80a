"""Optimiser and schedule. The learning rate is a function of the step, so there is no schedule state to save."""

from __future__ import annotations

import math

import torch
from timm.optim import Lamb, RMSpropTF, param_groups_weight_decay

from eyespot.engine.config import OptimConfig
from eyespot.engine.task import Task

RMSPROP_SMOOTHING = 0.9
"""Decay of rmsprop's mean of squared gradients: TensorFlow's and timm's default."""


def make_optimizer(task: Task, config: OptimConfig) -> torch.optim.Optimizer:
    """The optimiser of everything that trains; one-dimensional and excluded parameters without weight decay.

    The names mean what they mean in timm's factory: `sgd` has Nesterov's momentum and `rmsprop` is its `rmsproptf`.

    timm's LAMB bounds by default the norm of the gradient of all parameters together to 1. That is left to
    `OptimConfig.clip_norm` here, which bounds the gradient of each part of the task, so that students that train side
    by side do not depend on each other (ours; for one student `clip_norm=1` gives timm's numbers to six digits, because
    torch divides by the norm + 1e-6). As in timm, only what has weight decay is scaled by LAMB's trust ratio; nothing
    is if `weight_decay` is 0.
    """
    groups = param_groups_weight_decay(task, config.weight_decay, no_weight_decay_list=task.no_weight_decay())
    rate, momentum = config.learning_rate, config.momentum
    match config.optimizer:
        case "adamw":
            return torch.optim.AdamW(groups, lr=rate, betas=config.betas, eps=config.eps or 1e-8, fused=True)
        case "lamb":
            # LAMB counts its steps per group; a count that is there from the start is saved and restored.
            groups = [{**group, "step": torch.zeros(())} for group in groups]
            return Lamb(groups, lr=rate, betas=config.betas, eps=config.eps or 1e-6, max_grad_norm=None)
        case "sgd":
            return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=momentum > 0)
        case "rmsprop":
            eps = config.eps or 1e-10
            return RMSpropTF(groups, lr=rate, alpha=RMSPROP_SMOOTHING, momentum=momentum, eps=eps)


def moments_of(config: OptimConfig) -> int:
    """How many numbers the optimiser keeps for each one that trains."""
    with_momentum = int(config.momentum > 0)
    return {"adamw": 2, "lamb": 2, "sgd": with_momentum, "rmsprop": 1 + with_momentum}[config.optimizer]


def learning_rate(config: OptimConfig, step: int) -> float:
    """Learning rate of optimiser step `step` (from 0): linear warm-up, then the schedule's way to the final rate."""
    peak, final = config.learning_rate, config.final_learning_rate
    if step < config.warmup_steps:
        if config.warmup_start is None:
            return peak * (step + 1) / config.warmup_steps
        return config.warmup_start + step * (peak - config.warmup_start) / config.warmup_steps
    begin = 0 if config.warmup_overlaps else config.warmup_steps
    if config.decay_every is not None and config.schedule == "step":
        return max(final, peak * config.decay_rate ** ((step - begin) // config.decay_every))
    done = min(1.0, (step - begin) / max(1, config.steps - begin))
    left = (1 - done) ** config.power if config.schedule == "polynomial" else 0.5 * (1 + math.cos(math.pi * done))
    return final + (peak - final) * left
