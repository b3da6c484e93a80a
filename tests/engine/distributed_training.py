"""Run by several processes (see test_distributed.py), or by one for the reference: trainings that must come out equal.

python -m torch.distributed.run --standalone --nproc-per-node 2 distributed_training.py toys|recipe OUTPUT
(with this folder and tests/helpers in PYTHONPATH)
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from toy_training import PLAIN, ChangedTask, ToyBatches, ToyTask, make_trainer, toy_optim

from eupe_tiny import all_stages, tiny_config
from eyespot.engine.divergence import DivergenceError
from eyespot.engine.strategy import start_fabric
from eyespot.recipes.eupe import distill

RANK, WORLD_SIZE = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


class Interrupted(ToyBatches):
    """The last process gets a SIGTERM in step 4."""

    def batch(self, step: int) -> dict[str, Any]:
        if step == 4 and RANK == WORLD_SIZE - 1:
            signal.raise_signal(signal.SIGTERM)
        return super().batch(step)


def diverging(losses: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
    """NaN in the last process alone."""
    if step == 5 and RANK == WORLD_SIZE - 1:
        return {**losses, "loss": losses["loss"] * math.nan}
    return losses


def train_toys(folder: Path) -> None:
    """Trainings without random draws inside, which would differ between processes by design."""
    for name, changes in {"plain": {}, "accumulate": {"accumulate": 2}, "ema": {"ema_decay": 0.8}}.items():
        train(folder / name, optim=toy_optim(**changes))


def train(folder: Path, data: type[ToyBatches] = ToyBatches, **options: Any) -> None:
    task = options.pop("task", None) or ToyTask(dropout=0)
    student = make_trainer(folder, task=task, data=data(RANK, WORLD_SIZE), **options).train()["student"]
    if RANK == 0:
        torch.save({"student": student.state_dict(), "task": task.state_dict()}, folder / "result.pt")


def train_and_stop(folder: Path) -> None:
    """What ends a training early must end it in every process, and at the same step."""
    engine = replace(PLAIN, log_every=3, checkpoint_every=100)
    messages = [
        message_of(lambda: train(folder / "interrupted", data=Interrupted, engine=engine)),
        message_of(lambda: train(folder / "diverged", task=ChangedTask(diverging), engine=engine)),
    ]
    (folder / f"told-{RANK}.json").write_text(json.dumps(messages))
    train(folder / "interrupted", engine=engine)


def message_of(function: Callable[[], None]) -> str:
    try:
        function()
    except (KeyboardInterrupt, DivergenceError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing happened"


def train_recipe(folder: Path, name: str, standardizer: str, devices: int = 1, probes: int = 0) -> None:
    """All three stages. The student is no attention, which has biases whose gradient is nothing but rounding."""
    student = f"python/{folder}/teachers.py:student"
    config = tiny_config(
        folder,
        proxy=student,
        student={"model": student},
        standardizer=standardizer,
        engine={"devices": devices},
        probes={"every": probes, "data": ["toybox:20@32"], "limit": 10},
        **all_stages(steps=4, batch_size=8, accumulate=2),
    )
    distill(config, folder / name)


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, output = sys.argv[1], Path(sys.argv[2])
    if what == "toys":
        train_toys(output)
        train_and_stop(output)
        train_recipe(output, "channel-2", "channel", probes=2)
        train_recipe(output, "phi_s-2", "phi_s")
    else:
        train_recipe(output, "channel-2", "channel", devices=2)
    start_fabric(PLAIN).barrier()
