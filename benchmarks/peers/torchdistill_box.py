"""torchdistill 1.1.5: its DistillationBox with hooks on the pooled vectors and a mean squared error."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from by_hand import rate
from job import Job, Watch, models, statistics, widths
from pictures import batches, normalized
from torch import nn
from torchdistill.core.distillation import get_distillation_box  # type: ignore[import-not-found]

STUDENT_OUTPUT = "projection"
TEACHER_OUTPUT = "."  # what the model returns: without a classifier, its pooled vector


def train(job: Job, watch: Watch) -> nn.Module:
    """Trains the job's student."""
    student, teacher = models(job)
    dims = widths(student, job.size)[0], widths(teacher, job.size)[0]
    watch(student.patch_embed)
    projection = nn.Identity() if dims[0] == dims[1] else nn.Linear(*dims)
    taught = nn.Sequential(OrderedDict(student=student, projection=projection))
    box = get_distillation_box(teacher, taught, {}, config(job), torch.device("cpu"), None, False, 1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(box.optimizer, lambda step: rate(job, step))
    labels = torch.zeros(job.batch_size, dtype=torch.long)
    box.pre_epoch_process(epoch=0)
    for pictures in batches(job):
        images = normalized(pictures, statistics(student))
        with torch.autocast("cpu", enabled=job.precision == "bf16-mixed"):
            loss = box.forward_process(images, labels, None)
        box.post_forward_process(loss=loss)
        scheduler.step()
    box.post_epoch_process()
    return student


def config(job: Job) -> dict[str, Any]:
    """The box's configuration; the batches come from outside."""
    match = {
        "criterion": {"key": "MSELoss", "kwargs": {}},
        "criterion_wrapper": {
            "key": "SimpleLossWrapper",
            "kwargs": {
                "input": {"is_from_teacher": False, "module_path": STUDENT_OUTPUT, "io": "output"},
                "target": {"is_from_teacher": True, "module_path": TEACHER_OUTPUT, "io": "output"},
            },
        },
        "weight": 1.0,
    }
    return {
        "num_epochs": 1,
        "teacher": {
            "forward_proc": "forward_batch_only",
            "requires_grad": False,
            "forward_hook": {"input": [], "output": []},
        },
        "student": {
            "forward_proc": "forward_batch_only",
            "requires_grad": True,
            "forward_hook": {"input": [], "output": [STUDENT_OUTPUT]},
        },
        "optimizer": {
            "key": "AdamW",
            "kwargs": {"lr": job.learning_rate, "weight_decay": job.weight_decay, "fused": True},
        },
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"pooled": match}}},
    }
