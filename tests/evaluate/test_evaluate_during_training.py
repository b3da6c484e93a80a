"""Probes during training: what they measure, when they do not run, and that nothing else notices them."""

import copy
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from eyespot import Encoder, Features
from eyespot.engine.metrics import read_lines
from eyespot.evaluate import TASKS, evaluate, read_sources
from eyespot.evaluate.config import ProbesConfig
from eyespot.evaluate.during_training import Probes, StageProbes, read_probes

TOYBOX = "toybox:24@32"
NEEDS_OPTIONS = {"zero_shot", "retrieval"}
NEEDS_HEADS = {"multitask"}


class Tiny(Encoder):
    """With running statistics, which are part of what is probed, and a class head."""

    name, summary_dim, patch_dim, stride, default_size = "tiny", 6, 6, 8, (32, 32)
    num_classes = 6  # as many as the toybox has

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 8, 8), nn.BatchNorm2d(6))

    def _encode(self, images: Tensor) -> Features:
        patches = self.layers(images)
        return Features(patches.mean((2, 3)), patches, patches.mean((2, 3)))


@pytest.fixture
def student() -> Tiny:
    torch.manual_seed(0)
    return Tiny().train()


def learn(student: Tiny) -> None:
    """Something that changes weights and statistics, in place."""
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    student(torch.rand(4, 3, 32, 32))


def make_probes(folder: Path, size: int = 32, tensorboard: bool = False, **config: Any) -> Probes:
    plain: dict[str, Any] = {"every": 2, "data": [TOYBOX], "tasks": ["knn"], "limit": 12}
    return Probes(ProbesConfig(**plain | config), folder / "probes.jsonl", size, tensorboard=tensorboard)


def start(probes: Probes, step: int = 0) -> StageProbes:
    (watching,) = probes.of_stage("stage")
    assert isinstance(watching, StageProbes)
    watching.before_training(step)
    return watching


def steps(probes: Probes) -> list[int]:
    return [line["step"] for line in read_probes(probes.path).get("stage", [])]


class Held:
    """A measurement that waits until it is let go, or until it is told to stop."""

    def __init__(self) -> None:
        self.running, self.go = threading.Event(), threading.Event()

    def __call__(self, encoder: Encoder, stopped: Callable[[], bool]) -> dict[str, float]:
        self.running.set()
        while not self.go.wait(0.002):
            if stopped():
                raise InterruptedError
        return {"knn/accuracy": 0.5, "seconds": 0.0}


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Probes, Held]:
    probes, measurement = make_probes(tmp_path), Held()
    monkeypatch.setattr(probes, "measure", measurement)
    return probes, measurement


# What is measured


def test_the_same_numbers_as_evaluate_gives_for_the_model_of_that_step(tmp_path: Path, student: Tiny) -> None:
    probes = make_probes(tmp_path, tasks=["knn", "segmentation"], every=1)
    watching, expected = start(probes), []
    for step in (1, 2):
        learn(student)
        frozen = copy.deepcopy(student).eval()
        expected.append(evaluate({"x": frozen}, ["knn", "segmentation"], TOYBOX, 32, limit=12).rows["x"])
        watching.after_step(step, {"student": student})
        watching._settle()
    watching.after_training(2, {"student": student}, completed=True)
    lines = read_probes(probes.path)["stage"]
    assert [line["step"] for line in lines] == [1, 2]
    for line, row in zip(lines, expected, strict=True):
        assert set(line) == {"stage", "step", "knn/accuracy", "segmentation/mIoU", "seconds", "skipped"}
        assert all(line[name] == row[name] for name in ("knn/accuracy", "segmentation/mIoU"))
    assert len({line["segmentation/mIoU"] for line in lines}) == 2


def test_the_model_is_left_as_it_is(tmp_path: Path, student: Tiny) -> None:
    before = {name: value.clone() for name, value in student.state_dict().items()}
    watching = start(make_probes(tmp_path))
    watching.after_step(2, {"student": student})
    watching.after_training(2, {"student": student}, completed=True)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert all(module.training for module in student.modules())
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_one_copy_of_the_model_for_all_steps(tmp_path: Path, student: Tiny) -> None:
    watching = start(make_probes(tmp_path, every=1, device="cpu"))
    copies = set()
    for step in (1, 2, 3):
        watching.after_step(step, {"student": student})
        watching._settle()
        assert watching._copy is not None and not watching._copy.training
        copies.add(tuple(value.data_ptr() for value in watching._copy.parameters()))
    watching.after_training(3, {"student": student}, completed=True)
    assert len(copies) == 1 and not copies & {tuple(value.data_ptr() for value in student.parameters())}


@pytest.mark.parametrize("task", sorted(TASKS.keys() - NEEDS_OPTIONS - NEEDS_HEADS))
def test_no_task_touches_what_the_training_uses(
    tmp_path: Path, student: Tiny, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    """A training may draw from the global random state at the same time, so to restore it would not be enough; and it
    may have several processes, of which only one probes."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)  # collectives raise, as there is no group
    for name in ("manual_seed", "set_rng_state", "seed"):
        monkeypatch.setattr(torch, name, None)
        monkeypatch.setattr(torch.random, name, None)
    probes = make_probes(tmp_path, tasks=[task], data=["toybox:60@32"], limit=60)
    probes.open_data()
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    probes.measure(student.eval())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])  # type: ignore[index]


def test_the_training_keeps_its_threads(tmp_path: Path, student: Tiny) -> None:
    probes = make_probes(tmp_path)
    probes.open_data()
    torch.set_num_threads(2)
    try:
        watching = start(probes)
        watching.after_training(2, {"student": student}, completed=True)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_folders_for_each_task(tmp_path: Path, student: Tiny) -> None:
    from PIL import Image

    for number in range(24):
        folder = tmp_path / "flowers" / ("train" if number % 3 else "val") / ("red" if number % 2 else "blue")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (250, number, 5) if number % 2 else (5, number, 250)).save(folder / f"{number}.png")
    probes = make_probes(tmp_path, tasks=[], data=[f"knn={tmp_path / 'flowers'}"])
    assert list(probes.tasks) == ["knn"]
    probes.open_data()
    assert probes.measure(student.eval())["knn/accuracy"] == 1


# When


def test_due_while_one_is_running_it_is_left_out_and_counted(held: tuple[Probes, Held], student: Tiny) -> None:
    probes, measurement = held
    watching = start(probes)
    for step in range(1, 8):
        watching.after_step(step, {"student": student})
        assert watching.busy == (step >= 2)
    assert watching.skipped == [4, 6]
    measurement.go.set()
    watching.after_training(7, {"student": student}, completed=True)
    assert [(line["step"], line["skipped"]) for line in read_probes(probes.path)["stage"]] == [(2, 0), (7, 2)]


def test_the_last_step_is_probed_once_whether_due_or_not(held: tuple[Probes, Held], student: Tiny) -> None:
    probes, measurement = held
    watching = start(probes)
    for step in range(1, 5):
        watching.after_step(step, {"student": student})
    assert watching.skipped == [4]  # but it is the last
    measurement.go.set()
    watching.after_training(4, {"student": student}, completed=True)
    assert [(line["step"], line["skipped"]) for line in read_probes(probes.path)["stage"]] == [(2, 0), (4, 0)]
    again = start(probes, 4)  # killed between the last step and the end of the stage
    again.after_training(4, {"student": student}, completed=True)
    assert steps(probes) == [2, 4]


def test_a_resumed_run_has_each_step_once(held: tuple[Probes, Held], student: Tiny) -> None:
    probes, measurement = held
    measurement.go.set()
    other = StageProbes(probes, "another stage")
    other.before_training(0)
    other.after_training(9, {"student": student}, completed=True)
    for first, last in ((0, 5), (3, 8)):  # the second goes on from a checkpoint of step 3
        watching = start(probes, first)
        for step in range(first + 1, last + 1):
            watching.after_step(step, {"student": student})
            watching._settle()
        watching.after_training(last, {"student": student}, completed=last == 8)
    assert steps(probes) == [2, 4, 6, 8]
    assert [line["step"] for line in read_probes(probes.path)["another stage"]] == [9]


@pytest.mark.parametrize("cut", [False, True])
def test_killed_while_it_measures_the_last_step(held: tuple[Probes, Held], student: Tiny, cut: bool) -> None:
    probes, measurement = held
    measurement.go.set()
    probes.path.write_text('{"stage": "stage", "step": 2}\n' + '{"stage": "stage", "st' * cut)
    start(probes, 4).after_training(4, {"student": student}, completed=True)
    assert steps(probes) == [2, 4]


def test_after_an_error_or_interrupt_it_ends_early(held: tuple[Probes, Held], student: Tiny) -> None:
    probes, measurement = held
    watching = start(probes)
    watching.after_step(2, {"student": student})
    assert measurement.running.wait()
    watching.after_training(3, {"student": student}, completed=False)  # would wait for ever
    assert not watching.busy and steps(probes) == []


def test_a_real_measurement_stops_between_batches(tmp_path: Path, student: Tiny) -> None:
    probes = make_probes(tmp_path, data=["toybox:40@32"], limit=40)
    probes.open_data()
    asked = []

    def stopped() -> bool:
        asked.append(1)
        return len(asked) > 2

    with pytest.raises(InterruptedError):
        probes.measure(student.eval(), stopped)
    assert len(asked) == 3


# What goes wrong


def test_a_failure_is_told_once_and_is_not_fatal(
    tmp_path: Path, student: Tiny, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    probes = make_probes(tmp_path)
    original, calls = probes.measure, []

    def sometimes(*arguments: Any) -> dict[str, float]:
        calls.append(1)
        if len(calls) < 3:
            raise RuntimeError("out of memory")
        return original(*arguments)

    monkeypatch.setattr(probes, "measure", sometimes)
    watching = start(probes)
    for step in range(1, 7):
        watching.after_step(step, {"student": student})
        watching._settle()
    watching.after_training(6, {"student": student}, completed=True)
    warnings_seen = [str(warning.message) for warning in recwarn if "probe" in str(warning.message)]
    assert len(warnings_seen) == 1
    assert "stage: the probe of step 2 failed (RuntimeError('out of memory'))" in warnings_seen[0]
    assert steps(probes) == [6]


def test_a_model_that_cannot_be_copied(tmp_path: Path, student: Tiny) -> None:
    student.lock = threading.Lock()  # type: ignore[assignment]
    watching = start(make_probes(tmp_path))
    with pytest.warns(UserWarning, match="cannot be copied for probes"):
        watching.after_step(2, {"student": student})
    watching.after_training(2, {"student": student}, completed=True)


def test_a_model_that_diverged(tmp_path: Path, student: Tiny) -> None:
    with torch.no_grad():
        student.layers[0].weight.fill_(float("nan"))
    watching = start(make_probes(tmp_path))
    with pytest.warns(UserWarning, match="NaN"):
        watching.after_training(2, {"student": student}, completed=True)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"tasks": ["kn"]}, "did you mean 'knn'"),
        ({"tasks": ["zero_shot"]}, "zero_shot needs zero_shot.text"),
        ({"tasks": ["knn", "depth"], "data": ["knn=toybox"]}, "no data for depth"),
        ({"data": ["/some/folder"]}, "give each task its own folder"),
        ({"data": ["toybox", "knn=toybox"]}, "one source for all tasks, or TASK=FOLDER"),
        ({"data": []}, "one source for all tasks, or TASK=FOLDER"),
        ({"every": -1}, "every"),
        ({"limit": 0}, "limit"),
        ({"evry": 1}, "evry"),
    ],
)
def test_impossible_settings_are_refused(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_probes(tmp_path, **config)


def test_a_missing_folder_is_named_before_training(tmp_path: Path) -> None:
    probes = make_probes(tmp_path, data=[f"knn={tmp_path / 'nowhere'}"])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        probes.of_stage("stage")


# What is written and read


def test_sources_as_people_write_them() -> None:
    assert read_sources(["toybox:9"]) == "toybox:9"
    assert read_sources(["knn=a", "segmentation=camvid:b?x=1"]) == {"knn": "a", "segmentation": "camvid:b?x=1"}


def test_reading_what_is_not_there_or_not_in_order(tmp_path: Path) -> None:
    path = tmp_path / "probes.jsonl"
    assert read_probes(path) == {}
    path.write_text('{"stage": "b", "step": 4}\n{"stage": "a", "step": 1}\n{"stage": "b", "step": 2}\n')
    found = read_probes(path)
    assert list(found) == ["b", "a"] and [line["step"] for line in found["b"]] == [2, 4]


def test_tensorboard_shows_the_same_numbers(tmp_path: Path, student: Tiny) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    probes = make_probes(tmp_path, tensorboard=True)
    watching = start(probes)
    watching.after_step(2, {"student": student})
    watching.after_training(3, {"student": student}, completed=True)
    board = EventAccumulator(str(tmp_path / "tensorboard/stage/probes"))
    board.Reload()
    events = board.Scalars("knn/accuracy")
    lines = read_lines(probes.path)
    assert [event.step for event in events] == [line["step"] for line in lines] == [2, 3]
    assert [event.value for event in events] == pytest.approx([line["knn/accuracy"] for line in lines])
