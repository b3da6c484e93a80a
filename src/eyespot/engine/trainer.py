"""The one loop: how anything in the house is trained. It knows Tasks, and nothing of the methods behind them."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning.fabric import Fabric
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from eyespot.data.randomness import seed_everything
from eyespot.engine.callbacks import Callback
from eyespot.engine.checkpoint import Checkpoints
from eyespot.engine.config import EngineConfig, OptimConfig
from eyespot.engine.divergence import refuse_broken_weights, refuse_divergence
from eyespot.engine.interrupt import Interrupt
from eyespot.engine.metrics import Meter, RunLog
from eyespot.engine.optim import learning_rate, make_optimizer
from eyespot.engine.progress import TrainingBar
from eyespot.engine.task import Batch, Task


class Batches(Protocol):
    """Where batches come from: a pure function of the step, see `eyespot.data.loader.PictureLoader`."""

    def batches(self, start_step: int = 0) -> Iterator[Batch]:
        """This process's batches from `start_step` on, without end."""

    def batch(self, step: int) -> Batch:
        """This process's batch of one step."""

    def fingerprint(self) -> str:
        """Tells whether it is the same data."""


def start_fabric(engine: EngineConfig) -> Fabric:
    """Launches the processes that `engine` asks for; under torchrun, joins the ones that torchrun started."""
    devices, nodes = engine.devices, engine.nodes
    if "TORCHELASTIC_RUN_ID" in os.environ:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    for chatter in ("lightning.fabric", "lightning.pytorch"):  # importing lightning brings both
        logging.getLogger(chatter).setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator=engine.accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy="ddp" if devices * nodes > 1 else "auto",
        precision=engine.precision,
    )
    fabric.launch()
    return fabric


class Trainer:
    """Trains one Task for one stage of a run, from the last checkpoint if there is one.

    Args:
        fabric: devices, processes, precision.
        task: what is trained; moved to the device.
        data: where batches come from.
        optim: length, batch size, optimiser, schedule.
        engine: logging and checkpoints.
        folder: of the stage; checkpoints go to `folder/checkpoints`.
        metrics_path: the run's metrics.jsonl.
        stage: its name in metrics and progress.
        seed: of the draws inside a step.
        signature: everything that makes this training what it is; a checkpoint with another one is refused.
        callbacks: told how it goes; the trainer does not know what for.
    """

    def __init__(
        self,
        fabric: Fabric,
        task: Task,
        data: Batches,
        *,
        optim: OptimConfig,
        engine: EngineConfig,
        folder: Path,
        metrics_path: Path,
        stage: str,
        seed: int,
        signature: dict[str, Any] | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.fabric, self.data, self.optim, self.engine = fabric, data, optim, engine
        self.folder, self.metrics_path, self.stage, self.seed = folder, metrics_path, stage, seed
        self.task = task.to(fabric.device)
        self.signature = _plain(
            {**(signature or {}), "seed": seed, "optim": asdict(optim), "pictures": data.fingerprint()}
        )
        self.checkpoints = Checkpoints(folder / "checkpoints", engine.keep_checkpoints)
        self.optimizer: Any = make_optimizer(task, optim)
        self.students = nn.ModuleDict(dict(task.students))
        self.ema = ModelEmaV3(self.students, decay=optim.ema_decay) if optim.ema_decay else None
        self.callbacks = callbacks
        self.step = 0
        self.seconds = 0.0

    def train(self) -> dict[str, nn.Module]:
        """Runs to the end.

        Returns:
            The finished students by name (their moving averages if there is an EMA).

        Raises:
            DivergenceError: a loss is NaN or infinite.
            CheckpointError: a checkpoint does not fit or cannot be written.
            KeyboardInterrupt: after a checkpoint, if the user asked to stop.
        """
        state = self.checkpoints.load(self.fabric, self.signature)
        if state is not None:
            self._restore(state)
        else:
            self._prepare()
        self.model, self.optimizer = self.fabric.setup(self.task, self.optimizer)
        for callback in self.callbacks:
            callback.before_training(self.step)
        completed = False
        try:
            if self.step < self.optim.steps:
                self._loop()
            completed = True
        finally:
            for callback in self.callbacks:
                callback.after_training(self.step, self._made(), completed)
        return self._made()

    def _made(self) -> dict[str, nn.Module]:
        """What the training would end with now."""
        return dict((self.ema.module if self.ema else self.students).items())

    def _prepare(self) -> None:
        seed_everything(self.seed, self.stage, "prepare", self.fabric.global_rank)
        self.task.eval()
        count = min(self.task.preparation_steps, self.optim.steps)
        batches = (self._on_device(batch) for batch in islice(self.data.batches(0), count))
        with self.fabric.autocast():
            self.task.prepare(batches)

    def _loop(self) -> None:
        batches = self.data.batches(self.step)
        first = self.fabric.is_global_zero
        log = RunLog(self.metrics_path, self.stage, self.step, self.engine.tensorboard) if first else None
        bar = TrainingBar(self.stage, self.optim.steps, self.step, first and self.engine.progress)
        self.task.train()
        meter = Meter()
        self._mark, self._marked_step = time.monotonic(), self.step
        with Interrupt() as interrupt, bar:
            while self.step < self.optim.steps:
                meter.add(self._train_step(next(batches)))
                self.step += 1
                bar.step()
                save = self._is_due(self.engine.checkpoint_every)
                log_now = save or self._is_due(self.engine.log_every)
                stop = self._agree_to_stop(interrupt.requested, log_now)
                if log_now or stop:
                    line = self._measure(meter)
                    bar.note(self.step, line["loss"], line["pictures_per_second"])
                    if log:
                        log.write(self.step, line)
                if save or stop:
                    self._save()
                if stop:
                    raise KeyboardInterrupt(f"stopped at step {self.step}; the same command continues")
                for callback in self.callbacks:
                    callback.after_step(self.step, self._made())
        if log:
            log.close()

    def _agree_to_stop(self, wanted: bool, log_now: bool) -> bool:
        """Whether every process is to stop after this step."""
        if self.fabric.world_size == 1:
            return wanted
        if not log_now:  # asking the others is a device sync, so it waits for a log line
            return False
        wishes = self.fabric.all_reduce(torch.tensor(float(wanted), device=self.fabric.device), reduce_op="sum")
        return bool(wishes)

    def _is_due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.optim.steps

    def _train_step(self, batch: Batch) -> dict[str, Tensor]:
        """Forward and backward over the micro-batches of one batch, then one optimiser step."""
        batch = self._on_device(batch)
        rate = learning_rate(self.optim, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        seed_everything(self.seed, self.stage, "step", self.step, self.fabric.global_rank)
        total: dict[str, Tensor] = {}
        micro_batches = split(batch, self.optim.accumulate)
        for number, micro_batch in enumerate(micro_batches, start=1):
            with self.fabric.no_backward_sync(self.model, enabled=number < len(micro_batches)):
                losses = self.model(micro_batch)
                share = len(micro_batch["images"]) / len(batch["images"])
                self.fabric.backward(losses["loss"] * share)
            for name, value in losses.items():
                total[name] = total.get(name, 0) + value.detach() * share
        total["grad_norm"] = self._clip()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema:
            self.ema.update(self.students)
        return total

    def _clip(self) -> Tensor:
        """Clips the gradient if asked to; its norm before that."""
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.optim.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.optim.clip_norm, norm)
        return norm

    def _measure(self, meter: Meter) -> dict[str, float]:
        """The averages since the last line; the only place where the host reads from the device."""
        names, rows = meter.take()
        means = self.fabric.all_reduce(rows.mean(0), reduce_op="mean")
        assert isinstance(means, Tensor)
        values = dict(zip(names, means.tolist(), strict=True))
        refuse_divergence(
            values,
            rows,
            step=self.step,
            data=self.data,
            folder=self.folder,
            process=self.fabric.global_rank,
            last_good=self.checkpoints.last,
        )
        now = time.monotonic()
        elapsed, self._mark = now - self._mark, now
        pictures, self._marked_step = (self.step - self._marked_step) * self.optim.batch_size, self.step
        self.seconds += elapsed
        return {
            **values,
            "lr": learning_rate(self.optim, self.step - 1),
            "pictures_per_second": pictures / max(elapsed, 1e-9),
            "seconds": self.seconds,
        }

    def _save(self) -> None:
        trained = self.task.trained_state()
        refuse_broken_weights(trained, self.step, self.checkpoints.last)
        state = {
            "signature": self.signature,
            "seconds": self.seconds,
            "task": trained,
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
        }
        self.checkpoints.save(self.fabric, self.step, state)

    def _restore(self, state: dict[str, Any]) -> None:
        self.step, self.seconds = state["step"], state["seconds"]
        self.task.load_trained_state(state["task"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])

    def _on_device(self, batch: Batch) -> Batch:
        return {
            key: value.to(self.fabric.device, non_blocking=True) if isinstance(value, Tensor) else value
            for key, value in batch.items()
        }


def split(batch: Batch, parts: int) -> list[Batch]:
    """The batch in `parts` nearly equal micro-batches; what is not per picture goes with each."""
    count = len(batch["images"])
    edges = [count * part // parts for part in range(parts + 1)]
    return [
        {
            key: value[start:stop] if isinstance(value, Tensor) and value.ndim and len(value) == count else value
            for key, value in batch.items()
        }
        for start, stop in pairwise(edges)
        if stop > start
    ]


def _plain(value: Any) -> Any:
    """The value as JSON would give it back, so that a signature equals itself after a checkpoint."""
    return json.loads(json.dumps(value, sort_keys=True, default=str))
