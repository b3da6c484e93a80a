"""Optimiser and schedule. The learning rate is a function of the step, so there is no schedule state to save."""

from __future__ import annotations

import math

import torch
from timm.optim import param_groups_weight_decay

from eyespot.engine.config import OptimConfig
from eyespot.engine.task import Task


def make_optimizer(task: Task, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over everything that trains; one-dimensional and excluded parameters without weight decay."""
    groups = param_groups_weight_decay(task, config.weight_decay, no_weight_decay_list=task.no_weight_decay())
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


def learning_rate(config: OptimConfig, step: int) -> float:
    """Learning rate of optimiser step `step` (from 0): linear warm-up, then a cosine to the final rate."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * cosine
