"""One process of several fails, is stopped or killed: the others end too, with a clear message and without a hang."""

import itertools
import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from process_groups import endings, run_group, start_group
from toy_training import PLAIN, ChangedTask, ToyBatches, ToyTask, make_trainer, toy_optim

from eyespot.engine import processes as engine_processes
from eyespot.engine.checkpoint import Checkpoints
from eyespot.engine.config import EngineConfig
from eyespot.engine.metrics import read_lines
from processes import wait_until

STRATEGIES = pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])


class FaultyBatches(ToyBatches):
    """Something happens to the last process (or to all) while it makes the batch of step 5."""

    def __init__(self, rank: int, size: int, fault: str) -> None:
        super().__init__(rank, size)
        self.last = rank == size - 1
        self.fault = fault

    def batches(self, start_step: int = 0) -> Iterator[dict[str, Any]]:
        for step in itertools.count(start_step):
            if step == 5:
                self.happen()
            yield self.batch(step)

    def happen(self) -> None:
        if self.fault == "sigterm to all":
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)  # the launcher's echo
        elif not self.last:
            if self.fault == "error while the others read":
                time.sleep(10**6)
        elif self.fault.startswith("error"):
            raise ValueError("no such picture")
        elif self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.fault == "sigterm":
            signal.raise_signal(signal.SIGTERM)
        elif self.fault == "small disk":
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))


def train(rank: int, size: int, folder: Path, strategy: str, fault: str) -> None:
    engine_processes.GRACE_SECONDS = 1.0
    engine_processes._ANSWER_SECONDS = 4.0
    engine = EngineConfig(**{**PLAIN.__dict__, "strategy": strategy, "checkpoint_every": 2, "log_every": 100})
    last = rank == size - 1

    def change(losses: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
        return {**losses, "loss": losses["loss"] * torch.nan} if last and step == 5 and fault == "nan" else losses

    task: ToyTask = ChangedTask(change)
    make_trainer(folder, task=task, data=FaultyBatches(rank, size, fault), engine=engine, optim=toy_optim()).train()


def checkpoints(folder: Path) -> list[str]:
    return [path.name for path in Checkpoints(folder / "stage/checkpoints").paths()]


def leftovers(folder: Path) -> list[Path]:
    return list((folder / "stage/checkpoints").glob(".*"))


@STRATEGIES
def test_an_error_of_one_ends_all_and_is_named(tmp_path: Path, strategy: str) -> None:
    first, second = run_group(2, train, tmp_path, strategy, "error")
    assert second == "ValueError: no such picture"
    assert first == "PeerError: training ends here too: process 1 failed: ValueError: no such picture"
    assert checkpoints(tmp_path) == ["step-00000002.ckpt", "step-00000004.ckpt"]


def test_a_process_that_waits_for_ever_is_ended(tmp_path: Path) -> None:
    """As one does that waits for a device."""
    first, second = run_group(2, train, tmp_path, "ddp", "error while the others read")
    assert (first, second) == ("", "ValueError: no such picture")
    note = "process 0 is ended: process 1 failed: ValueError: no such picture"
    assert note in (tmp_path / "stderr-0.txt").read_text()


@STRATEGIES
def test_a_killed_one_ends_all(tmp_path: Path, strategy: str) -> None:
    first, second = run_group(2, train, tmp_path, strategy, "kill")
    assert second == ""
    assert first.startswith("PeerError: another process of this training ended without a word")
    assert "continues from the last checkpoint" in first


@pytest.mark.parametrize("fault", ["sigterm", "sigterm to all"])
def test_a_signal_to_one_or_all_stops_all_at_the_same_step_with_a_checkpoint(tmp_path: Path, fault: str) -> None:
    ended = run_group(2, train, tmp_path, "ddp", fault)
    # step 5 becomes the sixth that is done; the vote on it is counted one step later, whatever log_every is
    assert ended == ["Stopped: stopped at step 7; the same command continues"] * 2
    assert checkpoints(tmp_path)[-1] == "step-00000007.ckpt"
    assert run_group(2, train, tmp_path, "ddp", "none") == ["done"] * 2
    assert read_lines(tmp_path / "metrics.jsonl")[-1]["step"] == 10


@STRATEGIES
def test_divergence_in_one_stops_all_with_the_same_message(tmp_path: Path, strategy: str) -> None:
    ended = run_group(2, train, tmp_path, strategy, "nan")
    assert all(text.startswith("DivergenceError: training diverged: ") for text in ended)
    assert all("step-00000004.ckpt" in text for text in ended), ended
    assert "loss" in ended[1]
    assert checkpoints(tmp_path) == ["step-00000002.ckpt", "step-00000004.ckpt"]


@STRATEGIES
def test_a_full_disk_in_one_is_an_error_in_all(tmp_path: Path, strategy: str) -> None:
    """With fsdp each writes its part, so the last process fails; with ddp the first writes, which has no limit here."""
    size = 2 if strategy == "fsdp" else 1
    ended = run_group(size, train, tmp_path, strategy, "small disk")
    assert all(text.startswith("CheckpointError: could not write checkpoint") for text in ended)
    assert all("step-00000006.ckpt" in text and "File too large" in text for text in ended)
    assert all(f"{tmp_path}/stage/checkpoints/step-00000004.ckpt. Make room" in text for text in ended)
    assert checkpoints(tmp_path) == ["step-00000002.ckpt", "step-00000004.ckpt"]
    assert not leftovers(tmp_path)
    assert run_group(size, train, tmp_path, strategy, "none") == ["done"] * size


def train_long(rank: int, size: int, folder: Path, strategy: str) -> None:
    engine_processes._ANSWER_SECONDS = 1.0
    engine = EngineConfig(**{**PLAIN.__dict__, "strategy": strategy, "checkpoint_every": 1})
    data = ToyBatches(rank, size)
    make_trainer(folder, data=data, engine=engine, optim=toy_optim(steps=10**6)).train()


@STRATEGIES
@pytest.mark.slow
def test_killed_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path, strategy: str) -> None:
    for after in (3, 9, 17):
        group = start_group(2, train_long, tmp_path, strategy)
        start = len(read_lines(tmp_path / "metrics.jsonl"))
        assert wait_until(lambda: len(read_lines(tmp_path / "metrics.jsonl")) > start + after, group[0])  # noqa: B023
        for process in group:  # all before the first is waited for, or the others would have time to say why they end
            os.kill(process.pid, signal.SIGKILL)
        for process in group:
            process.join()
        found = Checkpoints(tmp_path / "stage/checkpoints")
        assert found.last is not None
        assert int(found.last.stem.removeprefix("step-")) >= after
    trainer = make_trainer(tmp_path, optim=toy_optim(steps=10**6))
    trainer._set_up()  # reads it, in one process
    assert trainer.step == int(found.last.stem.removeprefix("step-"))
    assert endings(tmp_path, 2) == ["", ""]
