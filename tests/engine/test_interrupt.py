"""Ctrl-C and SIGTERM end a training after the step in progress, with a checkpoint; nothing is lost."""

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy_training import PLAIN, ToyBatches, make_trainer, same, state_of, toy_optim

from eyespot.engine.interrupt import Interrupt
from eyespot.engine.metrics import read_lines
from processes import start_process, wait_until


class Interrupting(ToyBatches):
    """Sends signals to its own process while the batch of a training step is made (not that of the preparation)."""

    def __init__(self, at: int, *signals: signal.Signals) -> None:
        super().__init__()
        self.at, self.signals = at, signals
        self.seen: list[int] = []

    def batch(self, step: int) -> dict[str, Any]:
        self.seen.append(step)
        if step == self.at and self.seen.count(0) == 2:
            for number in self.signals:
                signal.raise_signal(number)
        return super().batch(step)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [0, 4, 9])
def test_stops_after_the_step_with_a_checkpoint_and_goes_on(tmp_path: Path, number: signal.Signals, at: int) -> None:
    engine = replace(PLAIN, log_every=100, checkpoint_every=100)
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    cut = make_trainer(tmp_path / "cut", engine=engine, data=Interrupting(at, number))
    with pytest.raises(KeyboardInterrupt, match=f"stopped at step {at + 1}; the same command continues"):
        cut.train()
    assert cut.checkpoints.last is not None
    assert cut.checkpoints.last.name == f"step-{at + 1:08d}.ckpt"
    assert [line["step"] for line in read_lines(tmp_path / "cut/metrics.jsonl")] == [at + 1]
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
    continued, whole = make_trainer(tmp_path / "cut", engine=engine), make_trainer(tmp_path / "whole", engine=engine)
    continued.train()
    whole.train()
    assert same(state_of(continued.task), state_of(whole.task))


def test_a_second_one_ends_it_at_once(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, data=Interrupting(4, signal.SIGINT, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt) as ended:
        trainer.train()
    assert ended.value.args == ()
    assert trainer.step == 4
    assert trainer.checkpoints.last is None


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    seen: list[bool] = []

    def run() -> None:
        before = signal.getsignal(signal.SIGINT)
        with Interrupt() as interrupt:
            seen.append(signal.getsignal(signal.SIGINT) is before and not interrupt.requested)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [True]


def train_long(folder: Path) -> None:
    engine = replace(PLAIN, checkpoint_every=10**6)
    make_trainer(folder, engine=engine, optim=toy_optim(steps=10**6)).train()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_from_outside(tmp_path: Path, number: signal.Signals) -> None:
    metrics = tmp_path / "metrics.jsonl"
    process = start_process(train_long, tmp_path)
    assert wait_until(lambda: len(read_lines(metrics)) > 3, process)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode not in (0, -number)  # it ended by itself, after its checkpoint
    steps = [line["step"] for line in read_lines(metrics)]
    assert steps == list(range(1, len(steps) + 1))
    assert [path.name for path in (tmp_path / "stage/checkpoints").iterdir()] == [f"step-{steps[-1]:08d}.ckpt"]
