"""timm 1.0.31: `timm.task.FeatureDistillationTask`, in the loop that its documentation shows."""

from __future__ import annotations

import torch
from by_hand import rate
from job import Job, Watch, models, statistics
from pictures import batches, normalized
from timm.task import FeatureDistillationTask
from torch import nn


def train(job: Job, watch: Watch) -> nn.Module:
    """Trains the job's student; the task insists on labels, whose loss counts nothing."""
    student, teacher = models(job)
    watch(student.patch_embed)
    task = FeatureDistillationTask(
        student_model=student, teacher_model=teacher, distill_loss_weight=1.0, task_loss_weight=0.0, verbose=False
    )
    task.train()
    parameters = task.trainable_module.parameters()
    optimizer = torch.optim.AdamW(parameters, lr=job.learning_rate, weight_decay=job.weight_decay, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(job, step))
    labels = torch.zeros(job.batch_size, dtype=torch.long)
    for pictures in batches(job):
        images = normalized(pictures, statistics(student))
        with torch.autocast("cpu", enabled=job.precision == "bf16-mixed"):
            loss = task(images, labels)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        scheduler.step()
    return student
