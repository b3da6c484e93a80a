"""LightlyTrain 0.18: `pretrain(method="distillationv3")`, its defaults but for what all loops here share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from job import Job, Watch, models, statistics
from pictures import BLUR, BLUR_SIGMA, COLOUR, CROP, JITTER, SOLARIZE, picture_files
from torch import nn

os.environ["LIGHTLY_TRAIN_EVENTS_DISABLED"] = "1"  # it reports home unless told not to before the import
os.environ["HF_HUB_OFFLINE"] = "1"


def train(job: Job, watch: Watch) -> nn.Module:
    """Trains the job's student on the job's files with LightlyTrain's own loader, losses and mixing of pictures."""
    os.environ["LIGHTLY_TRAIN_TMP_DIR"] = str(Path(job.folder) / "tmp")
    import lightly_train  # type: ignore[import-not-found]

    student, teacher = models(job)
    watch(student.patch_embed)
    mean, std = statistics(student)
    reference = (job.batch_size / 1536) ** 0.5  # it scales the learning rate by this
    steps_per_epoch = len(picture_files(Path(job.pictures))) // job.batch_size
    lightly_train.pretrain(
        out=str(Path(job.folder) / "lightly"),
        data=job.pictures,
        model=student,
        method="distillationv3",
        method_args={"teacher": teacher, "queue_size": job.queue},
        transform_args={
            "image_size": (job.size, job.size),
            "random_resize": {"min_scale": CROP[0], "max_scale": CROP[1]},
            "random_flip": {"horizontal_prob": 0.5, "vertical_prob": 0.0},
            "random_gray_scale": None,
            **(colours() if job.views == "colour" else dict.fromkeys(("color_jitter", "gaussian_blur", "solarize"))),
            "normalize": {"mean": mean, "std": std},
        },
        optim="adamw",
        optim_args={"lr": job.learning_rate / reference, "weight_decay": job.weight_decay},
        epochs=-(-job.steps // steps_per_epoch),
        trainer_args={"max_steps": job.steps},
        batch_size=job.batch_size,
        num_workers=0,
        devices=1,
        accelerator="cpu",
        precision=job.precision,
        seed=job.seed,
        overwrite=True,
    )
    return student


def colours() -> dict[str, Any]:
    """The changes of colour in its words."""
    return {
        "color_jitter": {"prob": JITTER, "strength": 1.0, **COLOUR},
        "gaussian_blur": {"prob": BLUR, "sigmas": BLUR_SIGMA, "blur_limit": 0},
        "solarize": {"prob": SOLARIZE, "threshold": 0.5},
    }
