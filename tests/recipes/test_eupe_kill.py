"""Killed or interrupted at any moment and started again: the same student to the last bit, through all stages."""

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from eupe_tiny import all_stages, model_bytes, tiny_config, write_pictures, write_teachers
from eyespot.engine.metrics import read_lines
from eyespot.recipes.eupe import EupeConfig, distill
from eyespot.recipes.eupe.config import STAGE_1, STAGE_2, STAGE_3
from eyespot.runs.run import is_finished
from processes import start_process, wait_until

STAGES = (STAGE_1, STAGE_2, STAGE_3)
STEPS = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kill")
    write_pictures(folder / "pictures")
    write_teachers(folder)
    return folder


@pytest.fixture(scope="module")
def config(folder: Path) -> EupeConfig:
    return tiny_config(folder, **all_stages(steps=STEPS, ema_decay=0.9))


@pytest.fixture(scope="module")
def whole(folder: Path, config: EupeConfig) -> Path:
    """The run that nothing disturbs, in a process of its own."""
    process = start_process(distill, config, folder / "whole")
    process.join()
    assert process.exitcode == 0
    return folder / "whole"


def logged(run: Path, stage: str) -> int:
    """Last step of a stage in metrics.jsonl."""
    return max((line["step"] for line in read_lines(run / "metrics.jsonl") if line["stage"] == stage), default=0)


def cut(config: EupeConfig, run: Path, number: signal.Signals, moment: Callable[[], bool]) -> int:
    """Starts or continues the run in a new process and sends it a signal at a moment; its exit code."""
    process = start_process(distill, config, run)
    assert wait_until(moment, process), "the run ended before its moment"
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def finish(config: EupeConfig, run: Path) -> None:
    process = start_process(distill, config, run)
    process.join()
    assert process.exitcode == 0


def assert_equal_runs(run: Path, whole: Path) -> None:
    files, wanted = model_bytes(run), model_bytes(whole)
    assert {"student/model.safetensors", "student/adapters.safetensors"} < wanted.keys()
    assert files.keys() == wanted.keys()
    assert [name for name in wanted if files[name] != wanted[name]] == []
    lines = [read_lines(place / "metrics.jsonl") for place in (run, whole)]
    every_step = [(stage, step) for stage in STAGES for step in range(1, STEPS + 1)]
    assert [(line["stage"], line["step"]) for line in lines[0]] == every_step
    assert [line["loss"] for line in lines[0]] == [line["loss"] for line in lines[1]]
    assert (run / "report.html").is_file()


def after(polls: int, reached: Callable[[], bool]) -> Callable[[], bool]:
    """True some polls after `reached` was, so in the middle of whatever comes then."""
    left = polls

    def moment() -> bool:
        nonlocal left
        left -= reached()
        return left < 0

    return moment


@pytest.mark.slow
def test_killed_once_in_every_stage(folder: Path, config: EupeConfig, whole: Path) -> None:
    run, rng = folder / "killed", random.Random(20)
    for number, stage in enumerate(STAGES):
        step, polls = rng.randint(1, STEPS // 2), rng.randint(0, 10)
        moment = after(polls, lambda stage=stage, step=step: logged(run, stage) >= step)  # type: ignore[misc]
        assert cut(config, run, signal.SIGKILL, moment) == -signal.SIGKILL
        # it really was in this stage
        assert [is_finished(run / each) for each in STAGES] == [True] * number + [False] * (3 - number)
        assert step <= logged(run, stage) <= STEPS
        assert not (run / "student").exists()
    finish(config, run)
    assert_equal_runs(run, whole)


@pytest.mark.slow
def test_interrupted_in_stages_two_and_three(folder: Path, config: EupeConfig, whole: Path) -> None:
    run = folder / "interrupted"
    for number, stage in ((signal.SIGINT, STAGE_2), (signal.SIGTERM, STAGE_3)):
        exit_code = cut(config, run, number, lambda stage=stage: logged(run, stage) >= 5)  # type: ignore[misc]
        assert exit_code not in (0, -number)  # it ended by itself
        newest = max(path.name for path in (run / stage / "checkpoints").iterdir())
        assert newest == f"step-{logged(run, stage):08d}.ckpt"  # with a checkpoint of the step in progress
        assert not is_finished(run / stage)
    finish(config, run)
    assert_equal_runs(run, whole)


@pytest.mark.slow
def test_killed_twenty_times_at_any_moment(folder: Path, config: EupeConfig, whole: Path) -> None:
    """Also between stages, while files are written, and at the end; a kill counts if the run was not yet finished."""
    run, rng, kills = folder / "killed often", random.Random(21), 0
    for _ in range(20):
        process = start_process(distill, config, run)
        if wait_until(after(rng.randint(0, 500), (run / "config.yaml").exists), process):
            process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
    assert kills >= 10
    finish(config, run)
    assert_equal_runs(run, whole)
