"""Checkpoints: whole or not at all, newest kept, refused where they do not belong, and what a full disk does."""

import errno
import json
import os
import resource
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_training import PLAIN, Crash, ToyBatches, ToyTask, make_trainer, same, state_of, stored, toy_optim

from eyespot.engine.checkpoint import CheckpointError, Checkpoints, difference
from eyespot.engine.processes import Processes
from eyespot.engine.trainer import Trainer
from processes import start_process

EVERY_2 = replace(PLAIN, checkpoint_every=2)


def crash_at(folder: Path, step: int, **options: Any) -> None:
    with pytest.raises(Crash):
        make_trainer(folder, data=ToyBatches(fails_at=step), engine=EVERY_2, **options).train()


def steps_kept(folder: Path) -> list[int]:
    return [int(path.stem.removeprefix("step-")) for path in Checkpoints(folder / "stage/checkpoints").paths()]


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(".tmp")]


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_newest_are_kept(tmp_path: Path, keep: int) -> None:
    make_trainer(tmp_path, engine=replace(EVERY_2, keep_checkpoints=keep)).train()
    assert steps_kept(tmp_path) == [2, 4, 6, 8, 10][-keep:]
    assert not leftovers(tmp_path)


def test_the_end_is_kept_even_if_it_is_not_due(tmp_path: Path) -> None:
    make_trainer(tmp_path, engine=replace(PLAIN, checkpoint_every=4), optim=toy_optim(steps=5)).train()
    assert steps_kept(tmp_path) == [4, 5]


def test_holds_what_is_trained_and_nothing_frozen(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, optim=toy_optim(ema_decay=0.9))
    trainer.train()
    assert trainer.checkpoints.last
    saved = stored(trainer.checkpoints.last, "task/")
    assert set(saved) == {name for name in trainer.task.state_dict() if not name.startswith("teacher.")}
    assert same(saved, trainer.task.trained_state())
    names = {name for name, parameter in trainer.task.named_parameters() if parameter.requires_grad}
    moments = {f"{name}/{key}" for name in names for key in ("step", "exp_avg", "exp_avg_sq")}
    assert set(stored(trainer.checkpoints.last, "optimizer/")) == moments
    assert same(stored(trainer.checkpoints.last, "ema/"), dict(trainer.ema.values))
    facts = json.loads((trainer.checkpoints.last / "training.json").read_text())
    assert facts.keys() == {"format", "step", "signature", "seconds", "contents"}  # no random state
    assert facts["step"] == 10


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"optim": toy_optim(learning_rate=0.02)}, "optim.learning_rate: 0.01 -> 0.02"),
        ({"optim": toy_optim(clip_norm=None)}, "optim.clip_norm: 0.5 -> None"),
        ({"seed": 6}, "seed: 5 -> 6"),
        ({"data": ToyBatches(name="others")}, "pictures: 'toy' -> 'others'"),
        ({"signature": {"teachers": {"a": "timm/b"}}}, "teachers.a: 'timm/x' -> 'timm/b'"),
        ({"signature": {}}, "teachers: {'a': 'timm/x'} -> 'absent'"),
    ],
)
def test_another_configuration_is_refused_with_the_difference(
    tmp_path: Path, changes: dict[str, Any], shown: str
) -> None:
    crash_at(tmp_path, 4, signature={"teachers": {"a": "timm/x"}})
    options = {"signature": {"teachers": {"a": "timm/x"}}} | changes
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match="another configuration") as refused:
        make_trainer(tmp_path, engine=EVERY_2, **options).train()
    assert str(refused.value).splitlines()[1:] == [f"  {shown}"]
    assert "step-00000004.ckpt" in str(refused.value)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


class Painted(ToyBatches):
    """Pictures that may be painted over, under the same names."""

    def __init__(self, paint: str, fails_at: int | None = None) -> None:
        super().__init__(fails_at=fails_at)
        self.paint = paint

    def full_fingerprint(self) -> str:
        return f"{self.name} {self.paint}"


def test_pictures_that_were_changed_on_the_way_are_told_of_once(tmp_path: Path) -> None:
    with pytest.raises(Crash):
        make_trainer(tmp_path, engine=EVERY_2, data=Painted("red", fails_at=4)).train()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(Crash):
            make_trainer(tmp_path, engine=EVERY_2, data=Painted("red", fails_at=5)).train()
    with pytest.warns(UserWarning, match=r"what is in the pictures .* has changed since step 4"), pytest.raises(Crash):
        make_trainer(tmp_path, engine=EVERY_2, data=Painted("blue", fails_at=8)).train()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_trainer(tmp_path, engine=EVERY_2, data=Painted("blue")).train()


def test_difference_lists_every_nested_entry() -> None:
    old = {"a": 1, "b": {"c": [1, 2], "d": None}, "e": "x"}
    new = {"a": 1, "b": {"c": [1, 3], "d": 0}, "f": "x"}
    assert difference(old, new) == [
        "b.c: [1, 2] -> [1, 3]",
        "b.d: None -> 0",
        "e: 'x' -> 'absent'",
        "f: 'absent' -> 'x'",
    ]
    assert difference(old, old) == []


@pytest.mark.parametrize("part", ["training.json", ".metadata", "__0_0.distcp"])
@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_an_unreadable_one_is_named_and_the_one_before_serves(tmp_path: Path, part: str, content: bytes | None) -> None:
    uninterrupted = make_trainer(tmp_path / "whole", engine=EVERY_2)
    uninterrupted.train()
    crash_at(tmp_path, 7)
    damaged = tmp_path / "stage/checkpoints/step-00000006.ckpt"
    file = damaged / part
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2] if content is None else content)
    with pytest.raises(CheckpointError, match=r"step-00000006\.ckpt cannot be read .* delete it"):
        make_trainer(tmp_path, engine=EVERY_2).train()
    shutil.rmtree(damaged)
    trainer = make_trainer(tmp_path, engine=EVERY_2)
    trainer.train()
    assert same(state_of(trainer.task), state_of(uninterrupted.task))


def test_one_without_a_part_is_named(tmp_path: Path) -> None:
    crash_at(tmp_path, 7)
    (tmp_path / "stage/checkpoints/step-00000006.ckpt/__0_0.distcp").unlink()
    with pytest.raises(CheckpointError, match=r"step-00000006\.ckpt cannot be read .* delete it"):
        make_trainer(tmp_path, engine=EVERY_2).train()


@pytest.mark.parametrize("as_a_file", [True, False])
def test_one_of_another_version_is_refused(tmp_path: Path, as_a_file: bool) -> None:
    crash_at(tmp_path, 4)
    path = tmp_path / "stage/checkpoints/step-00000004.ckpt"
    if as_a_file:
        shutil.rmtree(path)
        torch.save({"format": 1}, path)
    else:
        facts = json.loads((path / "training.json").read_text())
        (path / "training.json").write_text(json.dumps({**facts, "format": 1}))
    with pytest.raises(CheckpointError, match="another version of eyespot"):
        make_trainer(tmp_path, engine=EVERY_2).train()


def test_a_task_of_another_shape_is_refused(tmp_path: Path) -> None:
    crash_at(tmp_path, 4)

    class Grown(ToyTask):
        def __init__(self) -> None:
            super().__init__()
            self.more = torch.nn.Linear(2, 2)

    with pytest.raises(ValueError, match=r"missing \['more\.bias', 'more\.weight'\]"):
        make_trainer(tmp_path, task=Grown(), engine=EVERY_2).train()

    wider = ToyTask()
    wider.student.head = torch.nn.Linear(6, 5)
    with pytest.raises(ValueError, match=r"of other shapes .*'student\.head\.bias', 'student\.head\.weight'"):
        make_trainer(tmp_path, task=wider, engine=EVERY_2).train()


def test_files_left_by_a_kill_do_not_count_and_go(tmp_path: Path) -> None:
    crash_at(tmp_path, 4)
    half = tmp_path / "stage/checkpoints/.step-00000006.ckpt.tmp"
    half.mkdir()
    (half / "__0_0.distcp").write_bytes(b"half")
    other = tmp_path / "stage/checkpoints/.step-00000005.ckpt.tmp"
    other.write_bytes(b"half")
    trainer = make_trainer(tmp_path, engine=EVERY_2)
    trainer.train()
    assert trainer.step == 10
    assert not leftovers(tmp_path)


def test_no_space_left_names_the_last_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(tmp_path, engine=EVERY_2)
    sync = os.fsync

    def full(file: int) -> None:
        if trainer.step == 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(file)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"No space left.*Last good one: .*step-00000004\.ckpt.*same command"):
        trainer.train()
    monkeypatch.undo()
    assert steps_kept(tmp_path) == [2, 4]
    assert not leftovers(tmp_path)
    continued, whole = make_trainer(tmp_path, engine=EVERY_2), make_trainer(tmp_path / "whole", engine=EVERY_2)
    continued.train()
    whole.train()
    assert same(state_of(continued.task), state_of(whole.task))


def train_on_a_small_disk(folder: Path, limit: int) -> None:
    """Trains; from step 4 on no file can grow beyond `limit` bytes, as the kernel has it."""

    class Shrinking(ToyBatches):
        def batch(self, step: int) -> dict[str, Any]:
            if step == 4:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            return super().batch(step)

    message = "trained"
    try:
        make_trainer(folder, data=Shrinking(), engine=EVERY_2).train()
    except (CheckpointError, OSError) as error:
        message = f"{type(error).__name__}: {error}"
    print(message, flush=True)
    # a file of its own for the message: it is short
    (folder / "message.txt").write_text(message)


@pytest.mark.parametrize("limit", [4000, 8000])
def test_a_write_that_really_fails(tmp_path: Path, limit: int) -> None:
    process = start_process(train_on_a_small_disk, tmp_path, limit)
    process.join()
    assert process.exitcode == 0
    message = (tmp_path / "message.txt").read_text()
    assert message.startswith("CheckpointError")
    assert "step-00000006.ckpt" in message
    assert "Last good one" in message and "step-00000004.ckpt. Make room" in message
    assert steps_kept(tmp_path) == [2, 4]
    assert not leftovers(tmp_path)
    trainer = make_trainer(tmp_path, engine=EVERY_2)
    trainer.train()
    assert trainer.step == 10


def test_metrics_that_cannot_be_written(tmp_path: Path) -> None:
    process = start_process(train_on_a_small_disk, tmp_path, 700)
    process.join()
    message = (tmp_path / "message.txt").read_text()
    assert "metrics.jsonl" in message and "continues from the last checkpoint" in message
    trainer = make_trainer(tmp_path, engine=EVERY_2)
    trainer.train()
    assert trainer.step == 10


def test_nothing_is_trained_twice(tmp_path: Path) -> None:
    first = make_trainer(tmp_path)
    first.train()
    written = (tmp_path / "metrics.jsonl").read_bytes()
    again = make_trainer(tmp_path, data=ToyBatches(fails_at=0))
    student = again.train()["student"]
    assert same(state_of(student), state_of(first.task.student))
    assert again.task.prepared == 0
    assert (tmp_path / "metrics.jsonl").read_bytes() == written


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "nothing")
    assert checkpoints.last is None
    assert checkpoints.find(Processes(), {}) is None
    assert isinstance(make_trainer(tmp_path), Trainer)


def test_of_a_whole_section_that_differs_the_beginning_is_shown():
    section = {str(number): number for number in range(500)}
    (line,) = difference({"data": section}, {})
    assert line.startswith("data: {'0': 0, ") and line.endswith(" ... -> 'absent'") and len(line) < 250
