"""The one loop: how anything in the house is trained. It knows Tasks, and nothing of the methods behind them."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice, pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from eyespot.data.loading.batch import Batch
from eyespot.engine.average import MovingAverage
from eyespot.engine.callbacks import Callback
from eyespot.engine.checkpoint import Checkpoints
from eyespot.engine.config import EngineConfig, OptimConfig
from eyespot.engine.divergence import refuse_broken_weights, refuse_divergence
from eyespot.engine.interrupt import Interrupt
from eyespot.engine.metrics import Meter, RunLog
from eyespot.engine.optim import learning_rate, make_optimizer
from eyespot.engine.processes import Processes, Stopped
from eyespot.engine.progress import TrainingBar
from eyespot.engine.state import restore, tensors_of
from eyespot.engine.strategy import clip_gradients, hollow_copy, is_sharded, start_fabric, whole
from eyespot.engine.task import Task
from eyespot.engine.units import checkpoint_activations, compile_units
from eyespot.randomness import seed_everything

__all__ = ["Batches", "Trainer", "split_batch", "start_fabric"]

ECHO_SECONDS = 5.0
"""Among several processes, signals so shortly after the first are the same wish."""


class Batches(Protocol):
    """Where batches come from: a pure function of the step, see `eyespot.data.loading.pictures.PictureLoader`."""

    def batches(self, start_step: int = 0) -> Iterator[Batch]:
        """This process's batches from `start_step` on, without end."""

    def batch(self, step: int) -> Batch:
        """This process's batch of one step."""

    def fingerprint(self) -> str:
        """Tells whether it is the same data. A method `full_fingerprint` may tell, too, whether its content is."""


class Trainer:
    """Trains one Task for one stage of a run, from the last checkpoint if there is one.

    Args:
        fabric: devices, processes, precision.
        task: what is trained; moved to the device, and cut into slices if the strategy is fsdp.
        data: where batches come from.
        optim: length, batch size, optimiser, schedule.
        engine: logging, checkpoints, memory and speed.
        folder: of the stage; checkpoints go to `folder/checkpoints`.
        metrics_path: the run's metrics.jsonl; one in `folder` if None.
        stage: its name in metrics and progress; that of the folder if None.
        seed: of the draws inside a step.
        signature: everything that makes this training what it is; a checkpoint with another one is refused.
        callbacks: told how it goes; the trainer does not know what for.

    Raises:
        ValueError: a setting of `engine` that this Task or its students cannot follow.
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
        metrics_path: Path | None = None,
        stage: str | None = None,
        seed: int = 0,
        signature: dict[str, Any] | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.fabric, self.data, self.optim, self.engine = fabric, data, optim, engine
        self.folder, self.metrics_path = folder, metrics_path or folder / "metrics.jsonl"
        self.stage, self.seed = stage or folder.name, seed
        self.task = task
        self.signature = _plain(
            {**(signature or {}), "seed": seed, "optim": asdict(optim), "pictures": data.fingerprint()}
        )
        self.checkpoints = Checkpoints(folder / "checkpoints", engine.keep_checkpoints)
        self.processes = Processes()
        self.callbacks = callbacks
        self.step = 0
        self.seconds = 0.0

    def train(self) -> dict[str, nn.Module]:
        """Runs to the end.

        Returns:
            The finished students by name (their moving averages if there is an EMA). With fsdp they are whole copies on
            the CPU; only those of the first process hold numbers.

        Raises:
            DivergenceError: a loss is NaN or infinite.
            CheckpointError: a checkpoint does not fit or cannot be written.
            KeyboardInterrupt: after a checkpoint, if the user asked to stop.
            PeerError: another process has failed; says why.
        """
        with self.processes:
            self._set_up()
            for callback in self.callbacks:
                callback.before_training(self.step)
            completed = False
            try:
                if self.step < self.optim.steps:
                    self._loop()
                self._gather()
                completed = True
            finally:
                for callback in self.callbacks:
                    callback.after_training(self.step, self._made(), completed)
            return self._made()

    def _set_up(self) -> None:
        """Everything up to the first step, from the last checkpoint if there is one."""
        found = self.checkpoints.find(self.processes, self.signature)
        self._contents = getattr(self.data, "full_fingerprint", self.data.fingerprint)()
        sharded = is_sharded(self.fabric)
        if not sharded:  # what is cut into slices goes to the device piece by piece
            self.task.to(self.fabric.device)
        self.students = nn.ModuleDict(dict(self.task.students))
        # What is shown to others where the students themselves cannot be.
        self._shown = hollow_copy(self.students) if sharded or self.optim.ema_decay else self.students
        if self.engine.activation_checkpointing:
            checkpoint_activations(self.task)
        if self.engine.compile:
            compile_units(self.task)
        self.model = self.fabric.setup_module(self.task)
        self.task.to(self.fabric.device)
        self.optimizer: Any = self.fabric.setup_optimizers(make_optimizer(self.task, self.optim))
        self.parts = _checked_parts(self.task)
        self.ema = MovingAverage(self.students, self.optim.ema_decay) if self.optim.ema_decay else None
        if found is None:
            self._prepare()
        else:
            path, facts = found
            restore(path, self.task, self.optimizer, self.ema, self.processes)
            self.step, self.seconds = facts["step"], facts["seconds"]
            self._tell_of_changes(facts)
        if self.ema is not None and not sharded:
            self._shown.load_state_dict(self.ema.values, assign=True)

    def _made(self) -> dict[str, nn.Module]:
        """What the training would end with now."""
        return dict(self._shown.named_children())

    def _gather(self) -> None:
        """Puts students that are cut into slices together, for others to see."""
        if is_sharded(self.fabric):
            values = whole(self.ema.values if self.ema else self.students.state_dict())
            if values:
                self._shown.load_state_dict(values, assign=True)

    def _prepare(self) -> None:
        seed_everything(self.seed, self.stage, "prepare", self.fabric.global_rank)
        self.task.eval()
        count = min(self.task.preparation_steps, self.optim.steps)
        batches = (
            part
            for batch in map(self._on_device, islice(self.data.batches(0), count))
            for part in split_batch(batch, self._micro_batches(batch))
        )
        with self.fabric.autocast(), torch.no_grad():
            self.task.prepare(batches)

    def _loop(self) -> None:
        batches = self.data.batches(self.step)
        first = self.fabric.is_global_zero
        log = RunLog(self.metrics_path, self.stage, self.step, self.engine.tensorboard) if first else None
        bar = TrainingBar(self.stage, self.optim.steps, self.step, first and self.engine.progress)
        intervals = self._steps_between_calls()
        self.task.train()
        meter = Meter()
        self._mark, self._marked_step = time.monotonic(), self.step
        with Interrupt(ECHO_SECONDS if self.processes.count > 1 else 0.0) as interrupt, bar:
            while self.step < self.optim.steps:
                meter.add(self._train_step(next(batches)))
                self.step += 1
                bar.step()
                save = self._is_due(self.engine.checkpoint_every)
                stop = self.processes.any_wanted(interrupt.requested)
                if save or stop or self._is_due(self.engine.log_every):
                    line = self._measure(meter)
                    bar.note(self.step, line["loss"], line["pictures_per_second"])
                    if log:
                        log.write(self.step, line)
                if save or stop:
                    self._save()
                if stop:
                    raise Stopped(f"stopped at step {self.step}; the same command continues")
                self._tell_callbacks(intervals)
        if log:
            log.close()

    def _steps_between_calls(self) -> set[int]:
        """`every` of all callbacks in all processes."""
        return {
            every for each in self.processes.gather([call.every for call in self.callbacks]) for every in each if every
        }

    def _tell_callbacks(self, intervals: set[int]) -> None:
        if any(self.step % every == 0 for every in intervals):
            self._gather()
        for callback in self.callbacks:
            if callback.every and self.step % callback.every == 0:
                callback.after_step(self.step, self._made())

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
        micro_batches = split_batch(self.task.before_split(batch), self._micro_batches(batch))
        for number, micro_batch in enumerate(micro_batches, start=1):
            with self.fabric.no_backward_sync(self.model, enabled=number < len(micro_batches)):
                with _single_values_explained():
                    losses = self.model(_host_entries_stay(micro_batch))
                share = len(micro_batch["images"]) / len(batch["images"])
                self.fabric.backward(losses["loss"] * share)
            for name, value in losses.items():
                total[name] = total.get(name, 0) + value.detach() * share
        for name, parameters in self.parts.items():
            norm = clip_gradients(parameters, self.optim.clip_norm)
            total[f"{name}/grad_norm" if name else "grad_norm"] = norm
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema:
            self.ema.update(self.students)
        return total

    def _micro_batches(self, batch: Batch) -> int:
        """In how many parts a batch is computed; the same in every process."""
        if self.engine.max_tokens is None:
            return self.optim.accumulate
        tokens = self.task.tokens(batch)
        if not tokens:
            raise ValueError(f"{type(self.task).__name__} does not say how many tokens it computes: unset max_tokens")
        pictures = max(1, self.engine.max_tokens // tokens)
        return max(self.optim.accumulate, -(-len(batch["images"]) // pictures))

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
        tensors = tensors_of(self.task, self.optimizer, self.ema)
        refuse_broken_weights(self.task.trained_state(), self.step, self.checkpoints.last, self.processes)
        facts = {"signature": self.signature, "seconds": self.seconds, "contents": self._contents}
        self.checkpoints.save(self.processes, self.step, facts, tensors)

    def _tell_of_changes(self, facts: Mapping[str, Any]) -> None:
        """Pictures that were mended on the way are no reason to lose a training, but one to know of."""
        if self.fabric.is_global_zero and facts.get("contents", self._contents) != self._contents:
            warnings.warn(
                f"stage {self.stage}: what is in the pictures or their labels has changed since step {self.step} (of "
                "more than 2 GiB, or their times). It goes on with those of now; for one training on the same pictures "
                "throughout, begin a new run",
                stacklevel=2,
            )

    def _on_device(self, batch: Batch) -> Batch:
        """What the task needs there is moved there, without waiting for it."""
        wanted = self.task.on_device
        return {key: _moved(value, self.fabric.device) if key in wanted else value for key, value in batch.items()}


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {key: _moved(entry, device) for key, entry in value.items()}
    return value


def _host_entries_stay(batch: Batch) -> Batch:
    """The batch as a mapping that DDP and FSDP pass on as it is: of a dict they would move every tensor."""
    return MappingProxyType(batch)


def split_batch(batch: Batch, parts: int) -> list[dict[str, Any]]:
    """The batch in `parts` nearly equal micro-batches (fewer if it has fewer pictures).

    Tensors with one entry per picture are cut, also inside mappings; what is not per picture goes with each.
    """
    count = len(batch["images"])
    edges = [count * part // parts for part in range(parts + 1)]
    return [
        {key: _cut(value, count, slice(start, stop)) for key, value in batch.items()}
        for start, stop in pairwise(edges)
        if stop > start
    ]


def _cut(value: Any, count: int, part: slice) -> Any:
    if isinstance(value, Mapping):
        return {key: _cut(entry, count, part) for key, entry in value.items()}
    per_picture = isinstance(value, Tensor) and value.ndim and len(value) == count
    return value[part] if per_picture else value


def _checked_parts(task: Task) -> dict[str, list[nn.Parameter]]:
    """The task's parts.

    Raises:
        ValueError: they leave out something that trains, or name it twice.
    """
    parts = {name: list(parameters) for name, parameters in task.parts().items()}
    named = [id(parameter) for parameters in parts.values() for parameter in parameters]
    for name, parameter in task.named_parameters():
        if parameter.requires_grad and named.count(id(parameter)) != 1:
            raise ValueError(
                f"{type(task).__name__}.parts() must name {name} once, not {named.count(id(parameter))} times"
            )
    return parts


def _plain(value: Any) -> Any:
    """The value as JSON would give it back, so that a signature equals itself after a checkpoint."""
    return json.loads(json.dumps(value, sort_keys=True, default=str))


@contextmanager
def _single_values_explained() -> Iterator[None]:
    """Torch's word on a batch norm that sees one value per channel, in ours."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            "a batch norm has one value per channel to learn from: take more pictures at once (batch_size; accumulate, "
            "max_tokens and processes divide it) or larger ones"
        ) from error
