"""metrics.jsonl, the source of truth: every step once, whatever happened on the way."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_training import PLAIN, Crash, ToyBatches, make_trainer, toy_optim

from eyespot.engine.metrics import Meter, RunLog, _say_that_tensorboard_is_missing, read_lines


def steps_logged(folder: Path) -> list[int]:
    return [line["step"] for line in read_lines(folder / "metrics.jsonl")]


def test_meter_gives_each_step_once() -> None:
    meter = Meter()
    for step in range(3):
        meter.add(
            {"loss": torch.tensor(float(step), requires_grad=True), "other": torch.tensor(1, dtype=torch.float16)}
        )
    names, rows = meter.take()
    assert names == ["loss", "other"]
    assert rows.tolist() == [[0, 1], [1, 1], [2, 1]]
    assert rows.dtype == torch.float32 and not rows.requires_grad
    meter.add({"loss": torch.tensor(7.0), "other": torch.tensor(0.0)})
    assert meter.take()[1].tolist() == [[7, 0]]


def test_lines_stand_for_the_steps_since_the_last(tmp_path: Path) -> None:
    make_trainer(tmp_path / "each", optim=toy_optim(steps=7)).train()
    make_trainer(tmp_path / "three", optim=toy_optim(steps=7), engine=replace(PLAIN, log_every=3)).train()
    each = [line["loss"] for line in read_lines(tmp_path / "each/metrics.jsonl")]
    lines = read_lines(tmp_path / "three/metrics.jsonl")
    assert [line["step"] for line in lines] == [3, 6, 7]
    for line, mean in zip(lines, [sum(each[:3]) / 3, sum(each[3:6]) / 3, each[6]], strict=True):
        assert line["loss"] == pytest.approx(mean, rel=1e-6)


def test_a_line_says_what_there_is_to_know(tmp_path: Path) -> None:
    make_trainer(tmp_path).train()
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert set(line) == {
        *("stage", "step", "loss", "square", "absolute", "grad_norm", "lr", "pictures_per_second", "seconds")
    }
    assert line["stage"] == "stage" and line["step"] == 10
    assert line["loss"] == pytest.approx(line["square"] + line["absolute"], rel=1e-5)


@pytest.mark.parametrize("crash", [3, 4, 6, 9])
@pytest.mark.parametrize("cut", [False, True])
def test_each_step_once_after_a_crash(tmp_path: Path, crash: int, cut: bool) -> None:
    engine = replace(PLAIN, checkpoint_every=3)
    with pytest.raises(Crash):
        make_trainer(tmp_path, engine=engine, data=ToyBatches(fails_at=crash)).train()
    path = tmp_path / "metrics.jsonl"
    if cut:
        path.write_text(path.read_text() + '{"stage": "stage", "step": 1')
    make_trainer(tmp_path, engine=engine).train()
    assert steps_logged(tmp_path) == list(range(1, 11))
    make_trainer(tmp_path / "whole", engine=engine).train()
    whole = read_lines(tmp_path / "whole/metrics.jsonl")
    for line, wanted in zip(read_lines(path), whole, strict=True):
        assert {key: line[key] for key in ("loss", "grad_norm", "lr")} == {
            key: wanted[key] for key in ("loss", "grad_norm", "lr")
        }


def test_seconds_go_on_after_a_crash(tmp_path: Path) -> None:
    engine = replace(PLAIN, checkpoint_every=3)
    with pytest.raises(Crash):
        make_trainer(tmp_path, engine=engine, data=ToyBatches(fails_at=6)).train()
    make_trainer(tmp_path, engine=engine).train()
    seconds = [line["seconds"] for line in read_lines(tmp_path / "metrics.jsonl")]
    assert seconds == sorted(seconds)


def test_other_stages_keep_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = RunLog(path, "one", 0, tensorboard=False)
    for step in (1, 2, 3):
        first.write(step, {"loss": float(step)})
    RunLog(path, "two", 0, tensorboard=False).write(1, {"loss": 9.0})
    RunLog(path, "one", 2, tensorboard=False).write(3, {"loss": 30.0})
    lines = [(line["stage"], line["step"], line["loss"]) for line in read_lines(path)]
    assert lines == [("one", 1, 1.0), ("one", 2, 2.0), ("two", 1, 9.0), ("one", 3, 30.0)]


def test_reading_what_is_not_there_or_damaged(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_lines(path) == []
    path.write_text('{"step": 1}\n{"step": 2, "lo\n\n{"step": 3}\n{"st')
    assert read_lines(path) == [{"step": 1}, {"step": 3}]


def test_tensorboard_shows_the_same_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    engine = replace(PLAIN, tensorboard=True, checkpoint_every=3)
    with pytest.raises(Crash):
        make_trainer(tmp_path, engine=engine, data=ToyBatches(fails_at=5)).train()
    make_trainer(tmp_path, engine=engine).train()
    board = EventAccumulator(str(tmp_path / "tensorboard/stage"))
    board.Reload()
    events = board.Scalars("loss")
    lines = read_lines(tmp_path / "metrics.jsonl")
    assert [event.step for event in events] == [line["step"] for line in lines] == list(range(1, 11))
    assert [event.value for event in events] == pytest.approx([line["loss"] for line in lines])


def test_without_tensorboard_lines_are_written_and_one_remark_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    _say_that_tensorboard_is_missing.cache_clear()
    for stage in ("one", "two"):
        log = RunLog(tmp_path / "metrics.jsonl", stage, 0, tensorboard=True)
        log.write(1, {"loss": 1.0})
        log.close()
    assert [line["stage"] for line in read_lines(tmp_path / "metrics.jsonl")] == ["one", "two"]
    assert not (tmp_path / "tensorboard").exists()
    assert capsys.readouterr().err.count("pip install eyespot[tensorboard]") == 1
