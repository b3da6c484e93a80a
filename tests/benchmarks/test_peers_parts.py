"""The parts of benchmarks/peers that decide what is compared: jobs, losses, the stopwatch, the ridge map, pictures."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from eyespot.distill.features.losses import FeatureLoss
from eyespot.features import Features

PEERS = Path(__file__).parents[2] / "benchmarks" / "peers"


@pytest.fixture(autouse=True)
def peers_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PEERS))


def test_a_job_survives_its_way_into_another_process():
    from job import Job

    job = Job(
        loop="ours",
        losses="patches",
        student=("test_vit", "a.safetensors"),
        teachers=(("test_vit2", ""), ("test_resnet", "")),
        size=96,
        batch_size=4,
        steps=20,
        learning_rate=1e-3,
        folder="somewhere",
    )
    assert Job.from_json(job.to_json()) == job
    assert job.warmup_steps == 2
    with pytest.raises(ValueError, match="one teacher, not 2"):
        _ = job.teacher


def test_models_that_normalise_differently_are_refused():
    from job import Job, models

    job = Job(
        loop="by_hand",
        losses="pooled",
        student=("test_vit", ""),
        teachers=(("test_byobnet", ""),),
        size=96,
        batch_size=4,
        steps=2,
        learning_rate=1e-3,
        folder="",
    )
    with pytest.raises(ValueError, match="normalise differently"):
        models(job)


def test_the_loop_by_hand_computes_our_losses():
    from criteria import Patches

    torch.manual_seed(0)
    criterion = Patches((8, 8), (12, 12), hidden=16)
    for name in ("summary", "patch"):
        getattr(criterion, f"{name}_mean").normal_()
        getattr(criterion, f"{name}_std").uniform_(0.5, 2)
    student, teacher = torch.randn(3, 8), torch.randn(3, 12)
    maps, goals = torch.randn(3, 4, 8), torch.randn(3, 4, 12)
    predicted = Features(criterion.summary(student), criterion.patch(maps).mT.unflatten(2, (2, 2)))
    target = Features(
        (teacher - criterion.summary_mean) / criterion.summary_std,
        ((goals - criterion.patch_mean) / criterion.patch_std).mT.unflatten(2, (2, 2)),
    )
    expected = sum(FeatureLoss()(predicted, target))
    torch.testing.assert_close(criterion(student, maps, teacher, goals), expected)


def test_queue_similarity_by_loops():
    from criteria import QueueSimilarity

    torch.manual_seed(0)
    criterion = QueueSimilarity((8, 8), (6, 6), queue=5)
    for _ in range(2):
        maps, goals = torch.randn(3, 4, 8), torch.randn(3, 4, 6)
        loss = criterion(maps.mean(1), maps, goals.mean(1), goals)
    torch.testing.assert_close(criterion.remembered[:3], F.normalize(goals.mean(1), dim=-1))
    whole = F.normalize(criterion.whole(maps.mean(1)), dim=-1)
    local = F.normalize(criterion.local(maps), dim=-1)
    unit = F.normalize(goals, dim=-1)
    expected = 0.0
    for b in range(3):
        expected += kl(criterion.remembered @ criterion.remembered[b], criterion.remembered @ whole[b]) / 3
        for n in range(4):
            expected += kl(unit[b] @ unit[b, n], local[b] @ local[b, n]) / 12
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)


def kl(target: torch.Tensor, ours: torch.Tensor) -> float:
    p, q = (torch.softmax(values.detach() / 0.07, 0).tolist() for values in (target, ours))
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


LOOP = """
import sys, time
sys.path.insert(0, {peers!r})
from torch import nn, zeros
from stopwatch import Stopwatch
layer = nn.Identity()
Stopwatch().watch(layer)
print("noise of a library")
for step in range(100):
    layer(zeros(1))
    print("step", step, file=sys.stderr)
"""


def test_the_stopwatch_lets_a_loop_run_a_few_steps_at_a_time():
    process = subprocess.Popen(
        [sys.executable, "-c", LOOP.format(peers=str(PEERS))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    answers, errors = process.communicate("3\n5\nstop\n")
    lines = [json.loads(line) for line in answers.splitlines()]
    assert lines[0] == {"ready": True}
    assert [line["steps"] for line in lines[1:]] == [3, 5]
    assert all(line["cpu"] >= 0 and line["wall"] > 0 for line in lines[1:])
    # A turn is one step that does not count and those ordered; the loop stands before the step after them.
    assert errors.splitlines()[-1] == f"step {(1 + 3) + (1 + 5) - 1}"
    assert process.returncode == 0


def test_likeness_finds_a_linear_map_and_gives_nothing_for_noise():
    from measures import likeness

    generator = torch.Generator().manual_seed(0)
    student = torch.randn(400, 16, generator=generator) + 5
    linear = torch.randn(16, 9, generator=generator)
    teacher = student @ linear + 3
    assert likeness(student[:300], teacher[:300], student[300:], teacher[300:]) > 0.999
    noise = torch.randn(400, 9, generator=generator) + 3
    assert abs(likeness(student[:300], noise[:300], student[300:], noise[300:])) < 0.2


@pytest.mark.parametrize("views", ["crop", "colour"])
def test_files_become_batches_and_the_same_seed_gives_the_same_ones(tmp_path: Path, views: str):
    from job import Job
    from pictures import batches

    for number in range(5):
        Image.new("RGB", (40, 30), (40 * number, 0, 200)).save(tmp_path / f"{number}.jpg")
    job = Job(
        loop="by_hand",
        losses="pooled",
        student=("test_vit", ""),
        teachers=(),
        size=32,
        batch_size=2,
        steps=5,
        learning_rate=1e-3,
        pictures=str(tmp_path),
        views=views,
        folder="",
    )
    first, again = list(batches(job)), list(batches(job))
    assert len(first) == 5  # over the end of an epoch of two batches
    assert all(batch.shape == (2, 3, 32, 32) and batch.dtype == torch.uint8 for batch in first)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_scenes_as_files_can_be_opened_by_the_evaluator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import material

    from eyespot.data.sets import open_image_folder, open_mask_folder

    monkeypatch.setattr(material, "SPLITS", {"train": (40, 0), "val": (40, 2**32)})
    made = material.toybox(tmp_path)
    objects, scenes = open_image_folder(made.objects), open_mask_folder(made.scenes)
    assert len(objects.train.labels) == len(scenes.train.labels) == 40
    assert scenes.classes <= 9
    assert len(list(made.pictures.iterdir())) == 40


def test_missing_data_is_said_before_anything_is_trained(tmp_path: Path):
    import material

    with pytest.raises(FileNotFoundError, match="without --data the toybox"):
        material.real(tmp_path, tmp_path / "work")
