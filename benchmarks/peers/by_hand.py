"""The floor: a training loop in plain torch and timm, as short as one can write it."""

from __future__ import annotations

import math

import torch
from criteria import make_criterion, mix
from job import Job, Watch, features, models, statistics, widths
from pictures import batches, normalized
from torch import nn


def train(job: Job, watch: Watch) -> nn.Module:
    """Trains the job's student."""
    student, teacher = models(job)
    criterion = make_criterion(
        job.losses, widths(student, job.size), widths(teacher, job.size), job.adapter_width, job.queue
    )
    student.train()
    watch(student.patch_embed)
    parameters = [*student.parameters(), *criterion.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=job.learning_rate, weight_decay=job.weight_decay, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(job, step))
    for pictures in batches(job):
        images = normalized(pictures, statistics(student))
        images = mix(images) if criterion.mixup else images
        with torch.autocast("cpu", enabled=job.precision == "bf16-mixed"):
            with torch.no_grad():
                targets = features(teacher, images)
            loss = criterion(*features(student, images), *targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        scheduler.step()
    return student


def rate(job: Job, step: int) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then a cosine to 0."""
    if step < job.warmup_steps:
        return (step + 1) / job.warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - job.warmup_steps) / max(1, job.steps - job.warmup_steps)))
