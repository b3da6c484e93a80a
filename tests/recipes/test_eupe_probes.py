"""Probes in the EUPE recipe (without a proxy): the run stays the same to the last bit, also when it is killed."""

import signal
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import yaml

from eupe_tiny import all_stages, model_bytes, tiny_config, write_pictures, write_teachers
from eyespot.config import as_plain
from eyespot.engine.metrics import read_lines
from eyespot.evaluate.during_training import Probes, StageProbes, read_probes
from eyespot.recipes.eupe import EupeConfig, distill
from eyespot.recipes.eupe.config import STAGE_2, STAGE_3
from processes import start_process, wait_until

STAGES = (STAGE_2, STAGE_3)
STEPS = 8
DRAWING = "timm/test_vit?drop_path_rate=0.3&proj_drop_rate=0.2"  # from the global generator, in every step
PROBES = {"every": 2, "data": ["toybox:20@32"], "limit": 10}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probes")
    write_pictures(folder / "pictures")
    write_teachers(folder)
    return folder


def make_config(folder: Path, **changes: Any) -> EupeConfig:
    stages = all_stages(steps=STEPS, ema_decay=0.9)
    return tiny_config(folder, proxy=None, student={"model": DRAWING}, **stages, **changes)


@pytest.fixture(scope="module")
def alone(folder: Path) -> Path:
    """The run without probes."""
    distill(make_config(folder), folder / "alone")
    return folder / "alone"


@pytest.fixture(scope="module")
def probed(folder: Path) -> Path:
    """The same with probes, each of which lasts until the next one of its stage is due: quick as they are, they would
    else be done by then, and nothing would show that the training does not wait."""
    measure, after_step, after_training = Probes.measure, StageProbes.after_step, StageProbes.after_training
    due, ending = Event(), Event()

    def slow(self: Probes, *given: Any) -> dict[str, float]:
        assert due.wait(60), "the training waited for its probe"
        if not ending.is_set():
            due.clear()
        return measure(self, *given)

    def told(self: StageProbes, *given: Any) -> None:
        before = len(self.skipped)
        after_step(self, *given)
        if len(self.skipped) > before:
            due.set()

    def ended(self: StageProbes, *given: Any) -> None:
        ending.set()
        due.set()
        after_training(self, *given)
        ending.clear()
        due.clear()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Probes, "measure", slow)
        patch.setattr(StageProbes, "after_step", told)
        patch.setattr(StageProbes, "after_training", ended)
        distill(make_config(folder, probes=PROBES), folder / "probed")
    return folder / "probed"


def losses(run: Path) -> list[dict[str, Any]]:
    timing = {"seconds", "pictures_per_second"}
    lines = read_lines(run / "metrics.jsonl")
    return [{name: value for name, value in line.items() if name not in timing} for line in lines]


@pytest.mark.slow
def test_training_is_the_same_to_the_last_bit(alone: Path, probed: Path) -> None:
    assert model_bytes(probed) == model_bytes(alone)
    assert losses(probed) == losses(alone)
    # and it did not wait for the probes
    assert all(lines[-1]["skipped"] > 0 for lines in read_probes(probed / "probes.jsonl").values())


def test_every_stage_is_probed_in_the_background_and_at_its_end(alone: Path, probed: Path) -> None:
    found = read_probes(probed / "probes.jsonl")
    assert tuple(found) == STAGES
    for lines in found.values():
        steps = [line["step"] for line in lines]
        assert steps[0] == 2 and steps[-1] == STEPS and steps == sorted(set(steps))
        assert all({"knn/accuracy", "segmentation/mIoU", "seconds"} < line.keys() for line in lines)
    assert not (alone / "probes.jsonl").exists()


@pytest.mark.slow
def test_killed_while_a_probe_runs(folder: Path, alone: Path) -> None:
    """In stage 3; each probed step is there once after that, and the result is the same."""
    run, config = folder / "killed", make_config(folder, probes=PROBES)
    process = start_process(distill, config, run)

    def in_stage_3() -> bool:
        return any(line["stage"] == STAGE_3 and line["step"] >= 4 for line in read_lines(run / "metrics.jsonl"))

    assert wait_until(in_stage_3, process)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    process = start_process(distill, config, run)
    process.join()
    assert process.exitcode == 0
    assert model_bytes(run) == model_bytes(alone)
    found = read_probes(run / "probes.jsonl")
    assert tuple(found) == STAGES
    for lines in found.values():
        steps = [line["step"] for line in lines]
        assert steps[-1] == STEPS and steps == sorted(set(steps))


def test_probes_may_change_when_a_run_goes_on(folder: Path, alone: Path) -> None:
    before = model_bytes(alone)
    distill(make_config(folder, probes={**PROBES, "device": "cpu", "size": 48}), alone)
    stored = yaml.safe_load((alone / "config.yaml").read_text())
    stored.pop("probes")  # as a version that knew no probes wrote it
    (alone / "config.yaml").write_text(yaml.safe_dump(stored))
    distill(make_config(folder), alone)
    assert model_bytes(alone) == before
    assert yaml.safe_load((alone / "config.yaml").read_text()) == as_plain(make_config(folder))


def test_what_cannot_be_probed_is_refused_before_anything_is_trained(folder: Path, tmp_path: Path) -> None:
    for probes, message in (({"tasks": ["knnn"]}, "did you mean 'knn'"), ({"data": ["knn=/nowhere"]}, "nowhere")):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            distill(make_config(folder, probes={"every": 1, **probes}), tmp_path / "run")
        assert not (tmp_path / "run/metrics.jsonl").exists()
