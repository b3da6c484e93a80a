"""eyespot: its engine and loader, with its own losses ("patches") or with a peer's, for the same work."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from criteria import make_criterion, mix
from job import FREE_SIZE, Job, Watch
from lightning_fabric import Fabric
from pictures import BLUR, BLUR_SIGMA, COLOUR, CROP, JITTER, SOLARIZE, batch_in_memory
from torch import Tensor, nn

from eyespot import Encoder, load_encoder
from eyespot.data import DataConfig, PictureLoader, ViewConfig
from eyespot.data.loading.batch import Batch
from eyespot.distill.committee import Committee
from eyespot.distill.features.feature_distillation import FeatureDistillation
from eyespot.engine.config import EngineConfig, OptimConfig
from eyespot.engine.task import Task
from eyespot.engine.trainer import Trainer
from eyespot.pictures import as_unit_floats
from eyespot.randomness import seed_everything


class PeersLosses(Task):
    """A peer's losses as a task of our engine, for one teacher."""

    def __init__(self, student: Encoder, teacher: Encoder, criterion: nn.Module) -> None:
        super().__init__()
        self.student, self.criterion = student, criterion
        self.teacher = teacher.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> PeersLosses:
        """The teacher stays in eval mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The criterion's loss."""
        images = as_unit_floats(batch["images"])
        images = mix(images) if self.criterion.mixup else images
        with torch.no_grad():
            target = self.teacher(images)
        seen = self.student(images)
        return {"loss": self.criterion(seen.summary, seen.tokens, target.summary, target.tokens)}

    @property
    def students(self) -> Mapping[str, nn.Module]:
        """The one student."""
        return {"student": self.student}

    @property
    def frozen_parts(self) -> tuple[str, ...]:
        """The teacher."""
        return ("teacher",)


class OneBatch:
    """The same decoded batch for every step."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def batch(self, step: int) -> dict[str, Any]:
        return {"images": self.images, "step": step}

    def batches(self, start_step: int = 0) -> Iterator[dict[str, Any]]:
        return map(self.batch, itertools.count(start_step))

    def fingerprint(self) -> str:
        return "in memory"


def train(job: Job, watch: Watch) -> nn.Module:
    """Trains the job's student."""
    seed_everything(job.seed)
    student: Any = load_encoder(spec(*job.student))
    teachers = {f"teacher-{number}": load_encoder(spec(*teacher)) for number, teacher in enumerate(job.teachers)}
    watch(student.model.patch_embed)
    trainer = Trainer(
        Fabric(accelerator="cpu", devices=1, precision=job.precision),
        make_task(job, student, teachers),
        OneBatch(batch_in_memory(job)) if not job.pictures else loader(job),
        optim=OptimConfig(
            steps=job.steps,
            batch_size=job.batch_size,
            learning_rate=job.learning_rate,
            warmup_steps=job.warmup_steps,
            weight_decay=job.weight_decay,
        ),
        engine=EngineConfig(accelerator="cpu", precision=job.precision, progress=False, checkpoint_every=10**9),
        folder=Path(job.folder),
        metrics_path=Path(job.folder) / "metrics.jsonl",
        stage="peers",
        seed=job.seed,
    )
    trained: Any = trainer.train()["student"]
    model: nn.Module = trained.model
    return model


def spec(name: str, weights: str) -> str:
    """The same model as `job.build` makes, in our words."""
    free = "&dynamic_img_size=true" if name.startswith(FREE_SIZE) else ""
    return f"timm/{name}?" + (f"weights={weights}" if weights else "pretrained=false") + free


def make_task(job: Job, student: Encoder, teachers: Mapping[str, Encoder]) -> Task:
    """Our own task for our own losses; a peer's losses otherwise."""
    if job.losses == "patches":
        return FeatureDistillation(
            student,
            Committee(teachers),
            adapter_width=job.adapter_width,
            student_sizes=(job.size,),
            teacher_sizes=(job.size,),
            standardizer=job.standardizer,
            statistics_steps=16,
            seed=job.seed,
        )
    (teacher,) = teachers.values()
    dims, goal = ((encoder.summary_dim, encoder.patch_dim) for encoder in (student, teacher))
    return PeersLosses(student, teacher, make_criterion(job.losses, dims, goal, job.adapter_width, job.queue))


def loader(job: Job) -> PictureLoader:
    """Our loader, with the views of the others."""
    if job.views == "crop":
        view = ViewConfig(scale=CROP, jitter=0, blur=0, solarize=0)
    else:
        view = ViewConfig(scale=CROP, jitter=JITTER, **COLOUR, blur=BLUR, blur_sigma=BLUR_SIGMA, solarize=SOLARIZE)
    return PictureLoader(
        DataConfig(sources=[job.pictures], size=job.size, view=view, seed=job.seed), batch_size=job.batch_size
    )
