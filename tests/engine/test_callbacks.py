"""Callbacks: told what happens, when, and with which students; the training does not notice them."""

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy_training import PLAIN, Crash, ToyBatches, make_trainer, same, state_of, toy_optim

from eyespot.engine.callbacks import Callback, Students


class Diary(Callback):
    """Writes down every call, and the students' weights after each step."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.weights: list[dict[str, Any]] = []

    def before_training(self, step: int) -> None:
        self.calls.append(("before", step))

    def after_step(self, step: int, students: Students) -> None:
        self.calls.append(step)
        self.weights.append(state_of(students["student"]))

    def after_training(self, step: int, students: Students, completed: bool) -> None:
        self.calls.append(("after", step, completed))
        self.weights.append(state_of(students["student"]))


EVERY_3 = replace(PLAIN, checkpoint_every=3)


def trained(folder: Path, **options: Any) -> tuple[Diary, dict[str, Any]]:
    diary = Diary()
    return diary, state_of(make_trainer(folder, callbacks=[diary], **options).train()["student"])


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_told_everything_in_order_with_what_the_training_would_end_with(
    tmp_path: Path, ema_decay: float | None
) -> None:
    optim = toy_optim(ema_decay=ema_decay)
    diary, result = trained(tmp_path / "watched", optim=optim)
    assert diary.calls == [("before", 0), *range(1, 11), ("after", 10, True)]
    assert same(diary.weights[-1], result) and same(diary.weights[-2], result)
    assert not same(diary.weights[0], diary.weights[1])
    alone = make_trainer(tmp_path / "alone", optim=optim).train()["student"]
    assert same(state_of(alone), result)


def test_after_a_crash_it_goes_on_where_the_training_does(tmp_path: Path) -> None:
    diary = Diary()
    trainer = make_trainer(tmp_path, engine=EVERY_3, data=ToyBatches(fails_at=8), callbacks=[diary])
    with pytest.raises(Crash):
        trainer.train()
    assert diary.calls == [("before", 0), *range(1, 9), ("after", 8, False)]
    assert trained(tmp_path, engine=EVERY_3)[0].calls == [("before", 6), 7, 8, 9, 10, ("after", 10, True)]
    assert trained(tmp_path, engine=EVERY_3)[0].calls == [("before", 10), ("after", 10, True)]


def test_an_interrupt_is_not_a_completed_training(tmp_path: Path) -> None:
    class Interrupting(ToyBatches):
        def batch(self, step: int) -> dict[str, Any]:
            if step == 5:
                signal.raise_signal(signal.SIGINT)
            return super().batch(step)

    diary = Diary()
    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path, data=Interrupting(), callbacks=[diary]).train()
    assert diary.calls == [("before", 0), 1, 2, 3, 4, 5, ("after", 6, False)]


def test_what_a_callback_raises_ends_the_training(tmp_path: Path) -> None:
    class Broken(Diary):
        def after_step(self, step: int, students: Students) -> None:
            raise Crash

    broken = Broken()
    with pytest.raises(Crash):
        make_trainer(tmp_path, callbacks=[broken]).train()
    assert broken.calls == [("before", 0), ("after", 1, False)]


def test_one_that_wants_to_hear_nothing(tmp_path: Path) -> None:
    assert make_trainer(tmp_path, callbacks=[Callback()]).train().keys() == {"student"}
