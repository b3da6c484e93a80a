"""The optimiser's groups, the schedule, and one step of the engine against the same step in plain torch."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn
from toy_training import BATCH_SIZE, PLAIN, ToyBatches, ToyTask, make_trainer, state_of, toy_optim

from eyespot.engine.callbacks import Callback
from eyespot.engine.config import OptimConfig
from eyespot.engine.metrics import read_lines
from eyespot.engine.optim import learning_rate, make_optimizer
from eyespot.engine.trainer import split_batch
from eyespot.randomness import seed_everything


class Starting(Callback):
    """Does something when everything is set up for training."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.work = work

    def before_training(self, step: int) -> None:
        self.work()


def schedule(config: OptimConfig) -> list[float]:
    return [learning_rate(config, step) for step in range(config.steps)]


def test_learning_rate_values() -> None:
    config = toy_optim(steps=8, warmup_steps=4, learning_rate=2e-3, final_learning_rate=1e-4)
    assert schedule(config)[:5] == [5e-4, 1e-3, 1.5e-3, 2e-3, 2e-3]
    assert learning_rate(config, 6) == pytest.approx((2e-3 + 1e-4) / 2, rel=1e-12)  # half of the cosine
    assert learning_rate(config, 5) == pytest.approx(1e-4 + 1.9e-3 * (1 + math.cos(math.pi / 4)) / 2, rel=1e-12)
    assert learning_rate(config, 8) == pytest.approx(1e-4, rel=1e-12)
    assert learning_rate(config, 100) == pytest.approx(1e-4, rel=1e-12)


@pytest.mark.parametrize("warmup", [0, 1, 5, 10])
def test_learning_rate_rises_then_falls_to_its_end(warmup: int) -> None:
    rates = schedule(toy_optim(steps=10, warmup_steps=warmup, learning_rate=1.0))
    assert max(rates) == 1.0
    assert all(after > before for before, after in pairwise(rates[:warmup]))
    assert all(after < before for before, after in pairwise(rates[warmup:]))
    assert all(0 < rate <= 1 for rate in rates)


def test_weight_decay_spares_biases_norms_and_exclusions() -> None:
    task = ToyTask()
    optimizer = make_optimizer(task, toy_optim(weight_decay=0.05))
    names = {id(parameter): name for name, parameter in task.named_parameters()}
    decay = {names[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {name for name, value in decay.items() if value} == {"student.convolution.weight", "student.head.weight"}
    assert set(decay.values()) == {0.0, 0.05}
    assert decay["student.token"] == 0.0  # four-dimensional, but excluded by name
    assert not any(name.startswith("teacher") for name in decay)


@pytest.mark.parametrize("changes", [{"steps": -1}, {"batch_size": 0}, {"learning_rate": 0.0}, {"ema_decay": 1.0}])
def test_impossible_numbers_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        toy_optim(**changes)


def reference_steps(config: OptimConfig, steps: int) -> tuple[ToyTask, list[dict[str, float]]]:
    """The training by hand: plain loop, unfused AdamW, gradient clipped by its definition."""
    task, data = ToyTask(), ToyBatches()
    task.eval()
    task.prepare(data.batch(step) for step in range(3))
    task.train()
    plain = [task.student.token, task.student.convolution.bias, *task.student.norm.parameters(), task.student.head.bias]
    decayed = [task.student.convolution.weight, task.student.head.weight]
    optimizer = torch.optim.AdamW(
        [{"params": plain, "weight_decay": 0.0}, {"params": decayed, "weight_decay": config.weight_decay}],
        lr=1.0,
        betas=config.betas,
        fused=False,
        foreach=False,
    )
    lines = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        seed_everything(5, "stage", "step", step, 0)
        optimizer.zero_grad()
        losses = task(data.batch(step))
        losses["loss"].backward()
        gradients = [p.grad for p in [*plain, *decayed] if p.grad is not None]
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        if config.clip_norm is not None and norm > config.clip_norm:
            for gradient in gradients:
                gradient.mul_(config.clip_norm / norm)
        optimizer.step()
        lines.append({"grad_norm": float(norm), **{name: value.item() for name, value in losses.items()}})
    return task, lines


@pytest.mark.parametrize("clip_norm", [None, 0.05, 1e6])
def test_steps_equal_plain_torch(tmp_path: Path, clip_norm: float | None) -> None:
    config = toy_optim(steps=4, clip_norm=clip_norm)
    expected, lines = reference_steps(config, 4)
    trainer = make_trainer(tmp_path, optim=config)
    trainer.train()
    for line, wanted in zip(read_lines(tmp_path / "metrics.jsonl"), lines, strict=True):
        for name, value in wanted.items():
            assert line[name] == pytest.approx(value, rel=1e-5), name
        assert line["lr"] == learning_rate(config, line["step"] - 1)
    torch.testing.assert_close(state_of(trainer.task), state_of(expected), rtol=1e-4, atol=1e-6)
    assert not torch.equal(expected.student.head.weight, ToyTask().student.head.weight)


def test_clipping_bounds_the_gradient(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, optim=toy_optim(steps=1, clip_norm=0.05))
    norms: list[float] = []

    def look(optimizer: torch.optim.Optimizer, *_: object) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norms.append(float(torch.cat([gradient.flatten() for gradient in gradients]).norm()))

    trainer.callbacks = [Starting(lambda: trainer.optimizer.register_step_pre_hook(look))]
    trainer.train()
    assert norms == [pytest.approx(0.05, rel=1e-4)]
    assert read_lines(tmp_path / "metrics.jsonl")[0]["grad_norm"] > 0.05  # logged before clipping


@pytest.mark.parametrize("accumulate", [2, 3, 8, 20])
def test_accumulation_equals_one_batch(tmp_path: Path, accumulate: int) -> None:
    # without dropout, whose draws depend on how the batch is cut
    whole = make_trainer(tmp_path / "whole", task=ToyTask(dropout=0), optim=toy_optim(steps=3))
    parts = make_trainer(tmp_path / "parts", task=ToyTask(dropout=0), optim=toy_optim(steps=3, accumulate=accumulate))
    whole.train()
    parts.train()
    torch.testing.assert_close(state_of(parts.task), state_of(whole.task), rtol=1e-4, atol=1e-6)
    lines = [read_lines(tmp_path / name / "metrics.jsonl") for name in ("whole", "parts")]
    for one, other in zip(*lines, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)


@pytest.mark.parametrize(("parts", "sizes"), [(1, [8]), (2, [4, 4]), (3, [2, 3, 3]), (8, [1] * 8), (20, [1] * 8)])
def test_split_keeps_every_picture_once(parts: int, sizes: list[int]) -> None:
    batch = ToyBatches().batch(7)
    micro_batches = split_batch(batch, parts)
    assert [len(part["images"]) for part in micro_batches] == sizes
    assert torch.equal(torch.cat([part["images"] for part in micro_batches]), batch["images"])
    assert all(part["step"] == 7 and part["failures"] == [] for part in micro_batches)
    assert sum(sizes) == BATCH_SIZE


def test_moving_average_follows_its_recursion(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, optim=toy_optim(steps=5, ema_decay=0.8))
    start, seen = state_of(trainer.task.student), []

    def look(*_: object) -> None:
        seen.append(state_of(trainer.task.student))

    trainer.callbacks = [Starting(lambda: trainer.optimizer.register_step_post_hook(look))]
    result = trainer.train()["student"]
    average = start
    for state in seen:
        average = {name: 0.8 * value + 0.2 * state[name] for name, value in average.items()}
    assert len(seen) == 5
    torch.testing.assert_close(state_of(result), average, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(result.head.weight, trainer.task.student.head.weight)


def test_moving_average_does_not_touch_the_training(tmp_path: Path) -> None:
    with_average = make_trainer(tmp_path / "a", optim=toy_optim(steps=3, ema_decay=0.9))
    without = make_trainer(tmp_path / "b", optim=toy_optim(steps=3))
    with_average.train()
    without.train()
    for one, other in zip(with_average.task.parameters(), without.task.parameters(), strict=True):
        assert torch.equal(one, other)


def test_mixed_precision_keeps_weights_in_float32(tmp_path: Path) -> None:
    engine = replace(PLAIN, precision="bf16-mixed")
    kinds: list[torch.dtype] = []

    class Watched(ToyTask):
        def forward(self, batch):  # type: ignore[no-untyped-def]
            kinds.append(nn.functional.linear(torch.ones(1, 2), torch.ones(2, 2)).dtype)
            return super().forward(batch)

    trainer = make_trainer(tmp_path, task=Watched(), optim=toy_optim(steps=2), engine=engine)
    trainer.train()
    assert set(kinds) == {torch.bfloat16}  # autocast is on
    assert {parameter.dtype for parameter in trainer.task.parameters()} == {torch.float32}
    assert all(math.isfinite(line["loss"]) for line in read_lines(tmp_path / "metrics.jsonl"))
