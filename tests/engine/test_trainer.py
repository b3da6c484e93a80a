"""The loop: resumed equals uninterrupted to the last bit, wherever it was cut and however the pictures are read."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from toy_training import (
    BATCH_SIZE,
    PLAIN,
    Crash,
    ToyBatches,
    ToyTask,
    make_trainer,
    same,
    state_of,
    stored,
    toy_optim,
)

from eyespot.data import DataConfig, PictureLoader
from eyespot.engine.config import EngineConfig
from eyespot.engine.metrics import read_lines

EVERY_3 = replace(PLAIN, checkpoint_every=3)


def results(folder: Path, **options: Any) -> dict[str, dict[str, torch.Tensor]]:
    """Everything that a training ends with."""
    trainer = make_trainer(folder, **options)
    student = trainer.train()["student"]
    assert trainer.checkpoints.last
    moments = stored(trainer.checkpoints.last, "optimizer/")
    return {"student": state_of(student), "task": state_of(trainer.task), "moments": moments}


@pytest.mark.parametrize("ema_decay", [None, 0.9])
@pytest.mark.parametrize("crash", [0, 1, 3, 4, 8, 9])
def test_resumed_equals_uninterrupted(tmp_path: Path, crash: int, ema_decay: float | None) -> None:
    options = {"engine": EVERY_3, "optim": toy_optim(ema_decay=ema_decay, accumulate=2)}
    whole = results(tmp_path / "whole", **options)
    with pytest.raises(Crash):
        make_trainer(tmp_path / "cut", data=ToyBatches(fails_at=crash), **options).train()
    torch.manual_seed(99)  # no state of a global generator matters
    cut = results(tmp_path / "cut", **options)
    for part in ("student", "task", "moments"):
        assert same(cut[part], whole[part]), part


def test_interrupted_again_and_again(tmp_path: Path) -> None:
    whole = results(tmp_path / "whole")
    engine = replace(PLAIN, checkpoint_every=1)
    for crash in range(10):
        with pytest.raises(Crash):
            make_trainer(tmp_path / "cut", engine=engine, data=ToyBatches(fails_at=crash)).train()
    assert same(results(tmp_path / "cut")["task"], whole["task"])


def test_how_often_is_logged_and_saved_changes_nothing(tmp_path: Path) -> None:
    often = results(tmp_path / "often", engine=replace(PLAIN, checkpoint_every=1))
    seldom = results(tmp_path / "seldom", engine=replace(PLAIN, log_every=100, checkpoint_every=100))
    assert same(often["task"], seldom["task"])


@pytest.mark.parametrize(
    "other", [{"seed": 6}, {"optim": toy_optim(learning_rate=2e-2)}, {"task": ToyTask(dropout=0.2)}]
)
def test_what_should_change_the_result_does(tmp_path: Path, other: dict[str, Any]) -> None:
    assert not same(results(tmp_path / "a")["student"], results(tmp_path / "b", **other)["student"])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(11):
        Image.fromarray(rng.integers(0, 256, (24, 20, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"not a picture")
    return folder


def loader(pictures: Path, workers: int) -> PictureLoader:
    return PictureLoader(DataConfig(sources=[str(pictures)], size=16, workers=workers, seed=1), BATCH_SIZE)


class CutLoader:
    """A loader that fails before a step."""

    def __init__(self, inner: PictureLoader, fails_at: int) -> None:
        self.inner, self.fails_at = inner, fails_at
        self.batch, self.fingerprint = inner.batch, inner.fingerprint

    def batches(self, start_step: int = 0) -> Any:
        for batch in self.inner.batches(start_step):
            if batch["step"] == self.fails_at:
                raise Crash
            yield batch


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_in_the_middle_of_an_epoch_of_files(tmp_path: Path, pictures: Path, workers: int) -> None:
    # 12 files at 8 a step: epochs end inside batches
    whole = results(tmp_path / "whole", engine=EVERY_3, data=loader(pictures, 0))
    with pytest.raises(Crash):
        make_trainer(tmp_path / "cut", engine=EVERY_3, data=CutLoader(loader(pictures, workers), 7)).train()
    cut = results(tmp_path / "cut", engine=EVERY_3, data=loader(pictures, 2 - workers))
    assert same(cut["task"], whole["task"])
    assert [line["step"] for line in read_lines(tmp_path / "cut/metrics.jsonl")] == list(range(1, 11))


def test_broken_pictures_are_counted(tmp_path: Path, pictures: Path) -> None:
    data = loader(pictures, 0)
    make_trainer(tmp_path, data=data).train()
    assert [Path(name).name for name in data.failures] == ["broken.png"]


def test_prepared_once_with_no_more_batches_than_steps(tmp_path: Path) -> None:
    short, long = ToyTask(), ToyTask()
    make_trainer(tmp_path / "short", task=short, optim=toy_optim(steps=2)).train()
    make_trainer(tmp_path / "long", task=long).train()
    assert (short.prepared, long.prepared) == (2, 3)
    resumed = ToyTask()
    make_trainer(tmp_path / "long", task=resumed).train()
    assert resumed.prepared == 0
    assert torch.equal(resumed.target_mean, long.target_mean)


def test_frozen_parts_stay_as_they_are(tmp_path: Path) -> None:
    task = ToyTask()
    before = state_of(task.teacher)
    make_trainer(tmp_path, task=task).train()
    assert same(state_of(task.teacher), before)
    assert task.teacher.weight.grad is None


def test_dropout_is_drawn_anew_in_every_step_and_on_every_seed(tmp_path: Path) -> None:
    masks: list[torch.Tensor] = []

    class Watched(ToyTask):
        def forward(self, batch: Any) -> dict[str, torch.Tensor]:
            masks.append(torch.rand(4))
            return super().forward(batch)

    make_trainer(tmp_path / "a", task=Watched(), optim=toy_optim(steps=3)).train()
    make_trainer(tmp_path / "b", task=Watched(), optim=toy_optim(steps=3)).train()
    make_trainer(tmp_path / "c", task=Watched(), optim=toy_optim(steps=3), seed=6).train()
    drawn = torch.stack(masks)
    assert torch.equal(drawn[:3], drawn[3:6])
    assert len(torch.unique(drawn[3:], dim=0)) == 6


def test_progress_off_a_terminal_is_plain_lines(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make_trainer(tmp_path, engine=replace(PLAIN, progress=True, log_every=5)).train()
    lines = capfd.readouterr().err.strip().splitlines()
    assert [line.split("  ")[0] for line in lines] == ["stage: step 5/10", "stage: step 10/10"]
    assert all("pictures/s" in line for line in lines)


@pytest.mark.parametrize("wrong", [{"precision": "16"}, {"devices": 0}, {"log_every": 0}, {"device": 1}])
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EngineConfig(**wrong)


def test_a_batch_norm_that_sees_one_value_is_explained(tmp_path):
    class Lone(ToyTask):
        def forward(self, batch):
            torch.nn.functional.batch_norm(torch.zeros(1, 3, 1, 1), None, None, training=True)

    with pytest.raises(ValueError, match=r"batch norm has one value per channel .*batch_size"):
        make_trainer(tmp_path, task=Lone()).train()
