"""A small training for the engine's tests: one student, one frozen teacher, pictures made from the step's number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from eyespot.data.loading.batch import Batch
from eyespot.engine.checkpoint import read_into, stored_tensors
from eyespot.engine.config import EngineConfig, OptimConfig
from eyespot.engine.processes import Processes
from eyespot.engine.strategy import start_fabric
from eyespot.engine.task import Task
from eyespot.engine.trainer import Trainer
from eyespot.randomness import torch_generator

PLAIN = EngineConfig(accelerator="cpu", precision="32-true", log_every=1, tensorboard=False, progress=False)
BATCH_SIZE = 8


class Student(nn.Module):
    """Convolution, norm and a layer that draws at random when it trains."""

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 6, 1, 1))
        self.convolution = nn.Conv2d(3, 6, 4, stride=4)
        self.norm = nn.GroupNorm(1, 6)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        features = F.gelu(self.norm(self.convolution(images) + self.token))
        prediction: Tensor = self.head(self.dropout(features.mean((2, 3))))
        return prediction


class ToyTask(Task):
    """The student learns to say what a frozen linear map says; targets are centred with a mean found in `prepare`."""

    target_mean: Tensor

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.student = Student(dropout)
            self.teacher = nn.Linear(3 * 16 * 16, 4).requires_grad_(False)
        self.register_buffer("target_mean", torch.zeros(4))
        self.prepared = 0

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        images = batch["images"].float() / 255
        target = self.teacher(images.flatten(1)) - self.target_mean
        prediction = self.student(images)
        square, absolute = F.mse_loss(prediction, target), F.l1_loss(prediction, target)
        return {"loss": square + absolute, "square": square, "absolute": absolute}

    @property
    def students(self) -> Mapping[str, nn.Module]:
        return {"student": self.student}

    @property
    def frozen_parts(self) -> tuple[str, ...]:
        return ("teacher",)

    @property
    def preparation_steps(self) -> int:
        return 3

    @torch.no_grad()
    def prepare(self, batches: Iterable[Batch]) -> None:
        targets = [self.teacher(batch["images"].float().flatten(1) / 255) for batch in batches]
        mean = torch.cat(targets).mean(0)  # micro-batches may differ in size
        if dist.is_initialized():  # pooled over all processes, as every Task has to
            dist.all_reduce(mean)
            mean /= dist.get_world_size()
        self.target_mean.copy_(mean)
        self.prepared = len(targets)

    def no_weight_decay(self) -> set[str]:
        return {"student.token"}


class ToyBatches:
    """Random pictures that follow from the step; `fails_at` raises there, as a crash would."""

    def __init__(self, rank: int = 0, world_size: int = 1, fails_at: int | None = None, name: str = "toy") -> None:
        share = BATCH_SIZE // world_size
        self.slice = slice(rank * share, (rank + 1) * share)
        self.fails_at = fails_at
        self.name = name

    def batch(self, step: int) -> dict[str, Any]:
        images = torch.randint(
            0, 256, (BATCH_SIZE, 3, 16, 16), generator=torch_generator("toy", step), dtype=torch.uint8
        )
        return {"step": step, "images": images[self.slice], "failures": []}

    def batches(self, start_step: int = 0) -> Iterator[dict[str, Any]]:
        step = start_step
        while True:
            if step == self.fails_at:
                raise Crash(f"as if killed before step {step}")
            yield self.batch(step)
            step += 1

    def fingerprint(self) -> str:
        return self.name


class Crash(Exception):
    """Stands for whatever ends a process."""


def toy_optim(**changes: Any) -> OptimConfig:
    """Ten steps with all that an optimisation can have, but for what `changes` says."""
    plain: dict[str, Any] = {
        "steps": 10,
        "batch_size": BATCH_SIZE,
        "learning_rate": 1e-2,
        "warmup_steps": 3,
        "weight_decay": 0.05,
        "clip_norm": 0.5,
    }
    return OptimConfig(**plain | changes)


def make_trainer(
    folder: Path,
    *,
    task: Task | None = None,
    data: Any = None,
    optim: OptimConfig | None = None,
    engine: EngineConfig = PLAIN,
    **options: Any,
) -> Trainer:
    """A trainer of the toy in `folder`."""
    return Trainer(
        start_fabric(engine),
        task or ToyTask(),
        data or ToyBatches(),
        optim=optim or toy_optim(),
        engine=engine,
        folder=folder / "stage",
        metrics_path=folder / "metrics.jsonl",
        stage="stage",
        **{"seed": 5, **options},
    )


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's state."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def stored(checkpoint: Path, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a checkpoint whose names begin with `prefix`, under the rest of their names."""
    tensors = {name: torch.zeros(shape, dtype=dtype) for name, (shape, dtype) in stored_tensors(checkpoint).items()}
    read_into(checkpoint, tensors, Processes())
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def same(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    """Whether two states are equal to the last bit."""
    return left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())


Change = Callable[[dict[str, Tensor], int], dict[str, Tensor]]


class ChangedTask(ToyTask):
    """The toy with its losses changed by `change(losses, step)`."""

    def __init__(self, change: Change) -> None:
        super().__init__()
        self.change = change

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self.change(super().forward(batch), batch["step"])
