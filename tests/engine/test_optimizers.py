"""LAMB, SGD and RMSprop: their known numbers, resuming, and slices of FSDP against whole weights."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from process_groups import run_group
from torch import Tensor, nn
from toy_training import PLAIN, Crash, ToyBatches, ToyTask, make_trainer, same, state_of, stored, toy_optim

from eyespot.data.loading.batch import Batch
from eyespot.engine.callbacks import Callback
from eyespot.engine.config import OptimConfig
from eyespot.engine.optim import learning_rate, make_optimizer, moments_of
from eyespot.engine.strategy import clip_gradients
from eyespot.engine.task import Task
from eyespot.engine.trainer import Trainer

KINDS = ["lamb", "sgd", "rmsprop"]
RATES = {"adamw": 1e-2, "lamb": 1e-2, "sgd": 1e-1, "rmsprop": 1e-3}


class Linear(Task):
    """One weight and one bias, whose gradients the tests set."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.student = nn.Linear(2, 2, bias)
        with torch.no_grad():
            self.student.weight.copy_(torch.tensor([[0.5, -0.25], [1.0, 2.0]]))
            if bias:
                self.student.bias.copy_(torch.tensor([0.1, -0.2]))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        raise NotImplementedError

    @property
    def students(self) -> Mapping[str, nn.Module]:
        return {"student": self.student}


def lamb(**changes: Any) -> OptimConfig:
    plain = {"optimizer": "lamb", "learning_rate": 5e-3, "weight_decay": 0.02, "clip_norm": 1.0, "warmup_steps": 0}
    return toy_optim(**{**plain, **changes})


def after_steps(config: OptimConfig, gradients: Sequence[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias after each step, clipped and stepped as the engine does it, at the peak learning rate."""
    task, seen = Linear(), []
    optimizer = make_optimizer(task, config)
    for weight, bias in gradients:
        task.student.weight.grad, task.student.bias.grad = weight.clone(), bias.clone()
        clip_gradients(list(task.parameters()), config.clip_norm)
        optimizer.step()
        seen.append((task.student.weight.detach().clone(), task.student.bias.detach().clone()))
    return seen


WEIGHT = torch.tensor([[0.3, -0.1], [0.2, 0.4]])
BIAS = torch.tensor([0.05, 0.02])


def test_lamb_takes_the_published_recipes_steps() -> None:
    """papers/vanillakd.md, section c: two steps of timm's LAMB at its defaults; the second is clipped."""
    (w1, b1), (w2, b2) = after_steps(lamb(), [(WEIGHT, BIAS), (2 * WEIGHT, BIAS)])
    close = {"rtol": 0, "atol": 6e-7}
    torch.testing.assert_close(w1, torch.tensor([[0.4942878, -0.2443161], [0.9942312, 1.9941181]]), **close)
    torch.testing.assert_close(b1, torch.tensor([0.0950001, -0.2049998]), **close)
    torch.testing.assert_close(w2, torch.tensor([[0.4886002, -0.2386575], [0.9884859, 1.9882573]]), **close)
    torch.testing.assert_close(b2, torch.tensor([0.0900175, -0.2099822]), **close)


def test_lamb_does_not_see_the_scale_of_the_gradient() -> None:
    plain, large = after_steps(lamb(), [(WEIGHT, BIAS)])[0], after_steps(lamb(), [(100 * WEIGHT, 100 * BIAS)])[0]
    torch.testing.assert_close(plain[0], large[0], rtol=0, atol=2e-7)
    # the second step remembers the first one's size, unless it was clipped
    free = after_steps(lamb(clip_norm=None), [(100 * WEIGHT, BIAS), (WEIGHT, BIAS)])[1]
    clipped = after_steps(lamb(), [(100 * WEIGHT, BIAS), (WEIGHT, BIAS)])[1]
    assert (free[0] - clipped[0]).abs().max() > 1e-5


def test_sgd_has_nesterovs_momentum() -> None:
    config = toy_optim(optimizer="sgd", learning_rate=0.1, momentum=0.9, weight_decay=0.0)
    (first, _), (second, _) = after_steps(replace(config, clip_norm=None), [(WEIGHT, BIAS), (2 * WEIGHT, BIAS)])
    start = Linear().student.weight.detach()
    torch.testing.assert_close(first, start - 0.1 * 1.9 * WEIGHT)
    torch.testing.assert_close(second, first - 0.1 * (2 + 0.9 * (0.9 + 2)) * WEIGHT)
    (plain, _) = after_steps(replace(config, momentum=0.0), [(WEIGHT, BIAS)])[0]
    torch.testing.assert_close(plain, start - 0.1 * WEIGHT * min(1, 0.5 / torch.cat([WEIGHT.flatten(), BIAS]).norm()))


def test_rmsprop_is_tensorflows() -> None:
    """Mean of squares from 1, eps under the root, learning rate inside the momentum, decay added to the gradient."""
    config = toy_optim(optimizer="rmsprop", learning_rate=0.064, eps=1e-3, weight_decay=0.1, clip_norm=None)
    seen = after_steps(config, [(WEIGHT, BIAS), (2 * WEIGHT, BIAS)])
    weight, square, moved = Linear().student.weight.detach(), torch.ones(2, 2), torch.zeros(2, 2)
    for scale, (found, _) in zip((1, 2), seen, strict=True):
        gradient = scale * WEIGHT + 0.1 * weight
        square = 0.9 * square + 0.1 * gradient**2
        moved = 0.9 * moved + 0.064 * gradient / (square + 1e-3).sqrt()
        weight = weight - moved
        torch.testing.assert_close(found, weight)


@pytest.mark.parametrize(
    ("optimizer", "momentum", "numbers"),
    [("adamw", 0.9, 2), ("lamb", 0.9, 2), ("sgd", 0.9, 1), ("sgd", 0, 0), ("rmsprop", 0.9, 2), ("rmsprop", 0, 1)],
)
def test_moments_are_what_the_optimizer_keeps(optimizer: str, momentum: float, numbers: int) -> None:
    config = toy_optim(optimizer=optimizer, momentum=momentum)
    task = Linear(bias=False)
    task.student.weight.grad = WEIGHT.clone()
    made = make_optimizer(task, config)
    made.step()
    kept = [value for value in made.state[task.student.weight].values() if value is not None and value.ndim]
    assert [value.shape for value in kept] == [task.student.weight.shape] * numbers
    assert moments_of(config) == numbers


@pytest.mark.parametrize("optimizer", KINDS)
@pytest.mark.parametrize("crash", [1, 4, 7])
def test_resumed_equals_uninterrupted(tmp_path: Path, optimizer: str, crash: int) -> None:
    options: dict[str, Any] = {
        "engine": replace(PLAIN, checkpoint_every=3),
        "optim": toy_optim(optimizer=optimizer, learning_rate=RATES[optimizer], clip_norm=1.0),
    }
    whole = make_trainer(tmp_path / "whole", **options)
    whole.train()
    with pytest.raises(Crash):
        make_trainer(tmp_path / "cut", data=ToyBatches(fails_at=crash), **options).train()
    cut = make_trainer(tmp_path / "cut", **options)
    cut.train()
    assert same(state_of(cut.task), state_of(whole.task))
    assert cut.checkpoints.last and whole.checkpoints.last
    assert same(stored(cut.checkpoints.last), stored(whole.checkpoints.last))
    assert not same(state_of(whole.task), state_of(ToyTask()))


def test_lamb_saves_how_often_it_stepped(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, optim=lamb())
    trainer.train()
    assert trainer.checkpoints.last
    assert stored(trainer.checkpoints.last)["optimizer/group 0/step"] == 10


def test_students_side_by_side_are_clipped_one_by_one(tmp_path: Path) -> None:
    """LAMB's own clip would tie all parameters together; the engine's leaves a student alone with its gradient."""

    class Two(ToyTask):
        """A second student, whose loss is `scale` times as large, trains beside the first."""

        def __init__(self, scale: float) -> None:
            super().__init__(dropout=0)
            self.other, self.scale = nn.Linear(3 * 16 * 16, 1), scale
            nn.init.constant_(self.other.weight, 0.01)

        def forward(self, batch: Batch) -> dict[str, Tensor]:
            losses = super().forward(batch)
            other = self.other((batch["images"].float() / 255).flatten(1)).square().mean()
            return {**losses, "loss": losses["loss"] + self.scale * other}

        def parts(self) -> Mapping[str, Sequence[nn.Parameter]]:
            return {"student": list(self.student.parameters()), "other": list(self.other.parameters())}

    ends = []
    for scale in (1.0, 1000.0):
        trainer = make_trainer(tmp_path / str(scale), task=Two(scale), optim=lamb(steps=4))
        trainer.train()
        ends.append(state_of(trainer.task.student))
    assert same(*ends)


class Fused(Callback):
    """Steps many parameters at once, which is the default on a GPU."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def before_training(self, step: int) -> None:
        for group in self.trainer.optimizer.param_groups:
            group["foreach"] = True


def train_shared(rank: int, size: int, folder: Path, optimizer: str, strategy: str, foreach: bool) -> None:
    """Four steps of a toy whose first dimensions (6, 4 and 1) divide among two processes, or do not."""
    trainer = make_trainer(
        folder,
        task=ToyTask(dropout=0),
        data=ToyBatches(rank, size),
        engine=replace(PLAIN, strategy=strategy, checkpoint_every=2),
        optim=toy_optim(optimizer=optimizer, learning_rate=RATES[optimizer], steps=4, clip_norm=1.0),
    )
    if foreach:
        trainer.callbacks = [Fused(trainer)]
    student = trainer.train()["student"]
    if rank == 0:
        torch.save(student.state_dict(), folder / "result.pt")


@pytest.mark.parametrize(
    ("optimizer", "foreach"),
    [
        ("lamb", True),
        pytest.param("lamb", False, marks=pytest.mark.slow),
        *(pytest.param(name, True, marks=pytest.mark.slow) for name in ("sgd", "rmsprop")),
    ],
)
def test_sharded_equals_whole(tmp_path: Path, optimizer: str, foreach: bool) -> None:
    """Norms over slices (LAMB's trust ratios) must be those of the whole weights."""
    assert run_group(1, train_shared, tmp_path / "alone", optimizer, "ddp", False) == ["done"]
    assert run_group(2, train_shared, tmp_path / "cut", optimizer, "fsdp", foreach) == ["done"] * 2
    alone, cut = (torch.load(tmp_path / name / "result.pt") for name in ("alone", "cut"))
    torch.testing.assert_close(cut, alone, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(alone["head.weight"], ToyTask().student.head.weight, atol=1e-4)


def test_step_rates_fall_in_steps() -> None:
    config = toy_optim(steps=20, warmup_steps=2, learning_rate=0.1, schedule="step", decay_every=5, decay_rate=0.1)
    rates = [learning_rate(config, step) for step in range(20)]
    assert rates[:7] == [0.05, 0.1, *[0.1] * 5]
    assert rates[7:12] == pytest.approx([0.01] * 5) and rates[12:17] == pytest.approx([0.001] * 5)
    inside = replace(config, warmup_overlaps=True)
    assert [learning_rate(inside, step) for step in (1, 4, 5, 9, 10)] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])
    floored = replace(config, final_learning_rate=0.004)
    assert learning_rate(floored, 13) == 0.004
    assert learning_rate(replace(config, decay_rate=0.973), 7) == pytest.approx(0.0973)


def test_polynomial_rates() -> None:
    """SAK's stage 2 (papers/sak.md, section c): peak * (1 - step / steps)^0.9, per step, to 0."""
    config = toy_optim(steps=40_000, warmup_steps=0, learning_rate=2e-5, schedule="polynomial")
    rates = [learning_rate(config, step) for step in (0, 10_000, 20_000, 39_999, 40_000, 50_000)]
    wanted = [2e-5, 2e-5 * 0.75**0.9, 2e-5 * 0.5**0.9, 2e-5 * (1 / 40_000) ** 0.9, 0.0, 0.0]
    assert rates == pytest.approx(wanted, rel=1e-9)
    assert rates[2] == pytest.approx(1.07177e-5, rel=1e-5)
    straight = replace(config, power=1.0, warmup_steps=4_000, final_learning_rate=1e-6)
    assert learning_rate(straight, 3_999) == learning_rate(straight, 4_000) == 2e-5
    assert learning_rate(straight, 22_000) == pytest.approx((2e-5 + 1e-6) / 2)
    assert learning_rate(straight, 40_000) == 1e-6


def test_cosine_of_the_published_recipe() -> None:
    """papers/vanillakd.md, section c: recipe A2 with one step per epoch, warm-up not prefixed."""
    config = toy_optim(
        steps=300,
        learning_rate=5e-3,
        final_learning_rate=1e-6,
        warmup_steps=5,
        warmup_start=1e-6,
        warmup_overlaps=True,
    )
    epochs = [0, 1, 2, 4, 5, 20, 60, 150, 299]
    published = [1e-6, 0.0010008, 0.0020006, 0.0040002, 0.00499657, 0.00494538, 0.00452264, 0.0025005, 1.13705e-6]
    assert [learning_rate(config, epoch) for epoch in epochs] == pytest.approx(published, rel=2e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "step"}, "needs decay_every"),
        ({"warmup_start": 1.0}, "above the peak"),
        ({"optimizer": "adam"}, "optimizer"),
        ({"momentum": 1.0}, "momentum"),
        ({"eps": 0.0}, "eps"),
        ({"schedule": "step", "decay_every": 1, "decay_rate": 1.5}, "decay_rate"),
        ({"schedule": "polynomial", "power": 0.0}, "power"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        toy_optim(**changes)
