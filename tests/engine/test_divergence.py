"""NaN and infinite losses: the training stops, keeps the batch, and names the way back."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_training import PLAIN, ChangedTask, ToyBatches, ToyTask, make_trainer, same, stored, toy_optim

from eyespot.distill.committee import Committee
from eyespot.distill.features.feature_distillation import FeatureDistillation
from eyespot.encoders import Encoder
from eyespot.engine.divergence import DivergenceError
from eyespot.engine.metrics import read_lines
from eyespot.engine.trainer import Trainer
from eyespot.features import Features

EVERY_2 = replace(PLAIN, checkpoint_every=2)


def broken_at(step: int, value: float, term: str = "square") -> ChangedTask:
    def change(losses: dict[str, torch.Tensor], now: int) -> dict[str, torch.Tensor]:
        if now != step:
            return losses
        losses = {**losses, term: losses[term] * value}
        return {**losses, "loss": losses["square"] + losses["absolute"]}

    return ChangedTask(change)


def diverge(trainer: Trainer) -> str:
    with pytest.raises(DivergenceError) as error:
        trainer.train()
    return str(error.value)


def terms_named(message: str) -> set[str]:
    named = re.search(r"diverged: (.*) not finite", message)
    assert named
    return set(named.group(1).split(", "))


def all_finite(checkpoint: Path) -> bool:
    return all(bool(value.isfinite().all()) for value in stored(checkpoint).values())


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("log_every", [1, 4, 100])
def test_what_broke_first_is_named(tmp_path: Path, value: float, log_every: int) -> None:
    trainer = make_trainer(tmp_path, task=broken_at(5, value), engine=replace(EVERY_2, log_every=log_every))
    message = diverge(trainer)
    # one step later everything is NaN, `absolute` too; what is told is the first step
    assert terms_named(message) == {"loss", "square", "grad_norm"}
    assert "first in step 5," in message
    assert f"Last good checkpoint: {tmp_path / 'stage/checkpoints/step-00000004.ckpt'}" in message
    assert trainer.checkpoints.last == tmp_path / "stage/checkpoints/step-00000004.ckpt"
    assert all_finite(trainer.checkpoints.last)
    assert all(math.isfinite(line["loss"]) for line in read_lines(tmp_path / "metrics.jsonl"))


def test_the_batch_is_kept(tmp_path: Path) -> None:
    message = diverge(make_trainer(tmp_path, task=broken_at(5, math.nan), engine=EVERY_2))
    path = tmp_path / "stage/diverged-step-5.pt"
    assert str(path) in message
    kept, replayed = torch.load(path, weights_only=True), ToyBatches().batch(5)
    assert kept.keys() == replayed.keys()
    assert kept["step"] == 5
    assert torch.equal(kept["images"], replayed["images"])
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_logged_term_alone_stops_the_training(tmp_path: Path) -> None:
    def change(losses: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
        return {**losses, "extra": torch.tensor(math.inf if step == 3 else 1.0)}

    assert terms_named(diverge(make_trainer(tmp_path, task=ChangedTask(change)))) == {"extra"}


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    assert "Last good checkpoint: none yet" in diverge(make_trainer(tmp_path, task=broken_at(0, math.nan)))


def test_continues_with_the_fault_mended(tmp_path: Path) -> None:
    diverge(make_trainer(tmp_path, task=broken_at(5, math.nan), engine=EVERY_2))
    mended, whole = make_trainer(tmp_path, engine=EVERY_2), make_trainer(tmp_path / "whole", engine=EVERY_2)
    mended.train()
    whole.train()
    assert same(mended.task.state_dict(), whole.task.state_dict())


@pytest.mark.parametrize("learning_rate", [1e20, 1e38])
@pytest.mark.parametrize("every", [1, 3])
def test_a_huge_learning_rate(tmp_path: Path, learning_rate: float, every: int) -> None:
    optim = toy_optim(steps=50, learning_rate=learning_rate, warmup_steps=0, clip_norm=None, weight_decay=0.5)
    trainer = make_trainer(tmp_path, optim=optim, engine=replace(PLAIN, checkpoint_every=every, log_every=every))
    message = diverge(trainer)
    assert "Lower the learning rate" in message
    for path in trainer.checkpoints.paths():
        assert all_finite(path)


def test_an_overflow_in_the_last_update_is_not_saved(tmp_path: Path) -> None:
    # loss and gradient of the only step are finite; its update is not
    optim = toy_optim(steps=1, learning_rate=1e38, warmup_steps=0, weight_decay=100.0)
    trainer = make_trainer(tmp_path, optim=optim)
    message = diverge(trainer)
    assert "update of step 0 made student." in message and "Last good checkpoint: none yet" in message
    assert trainer.checkpoints.last is None


class Teacher(Encoder):
    """Plain averages; NaN for the calls that `broken` names."""

    def __init__(self, broken: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.name, self.license = "python/teacher", None
        self.summary_dim, self.patch_dim, self.stride = 3, 3, 8
        self.native_size, self.default_size = None, (16, 16)
        self.scale = torch.nn.Parameter(torch.ones(3, 1, 1))
        self.calls, self.broken = 0, broken

    def _encode(self, images: torch.Tensor) -> Features:
        patches = torch.nn.functional.avg_pool2d(images, 8) * self.scale
        if self.calls in self.broken:
            patches = patches.clone()
            patches[1, 0, 0, 0] = math.nan  # one number of one picture
        self.calls += 1
        return Features(patches.mean((2, 3)), patches)


def distillation(bad: Teacher) -> FeatureDistillation:
    committee = Committee({"good": Teacher(), "bad": bad})
    return FeatureDistillation(Teacher(), committee, adapter_width=4, student_sizes=[16], statistics_steps=3)


def test_nan_of_one_teacher_in_the_middle(tmp_path: Path) -> None:
    # three calls for the statistics, then one in every step
    task = distillation(Teacher(broken=(3 + 5,)))
    message = diverge(make_trainer(tmp_path, task=task, engine=replace(EVERY_2, log_every=4)))
    assert terms_named(message) == {"loss", "bad/summary", "bad/patch", "grad_norm"}
    assert "first in step 5," in message and "step-00000004.ckpt" in message
    assert (tmp_path / "stage/diverged-step-5.pt").is_file()


@pytest.mark.parametrize("standardizer", ["channel", "phi_s"])
def test_nan_in_the_statistics_names_the_teacher(tmp_path: Path, standardizer: str) -> None:
    task = distillation(Teacher(broken=(1,)))
    task.standardizers = type(task)(
        Teacher(), task.committee, adapter_width=4, student_sizes=[16], standardizer=standardizer
    ).standardizers
    with pytest.raises(ValueError, match="teacher 'bad': the features hold NaN or infinite values"):
        make_trainer(tmp_path, task=task).train()


def test_plain_training_raises_nothing(tmp_path: Path) -> None:
    make_trainer(tmp_path, task=ToyTask()).train()
    assert not list(tmp_path.rglob("diverged-*"))
