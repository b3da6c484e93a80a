"""Path training in slices on two processes gives what it gives on one: a student is looked at, not called."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from process_groups import run_group
from toy_training import BATCH_SIZE, PLAIN, make_trainer, toy_optim

from eyespot.encoders.multitask import make_multitask_encoder
from eyespot.encoders.sources.timm import TimmEncoder, create_timm_encoder
from eyespot.engine.strategy import start_fabric
from eyespot.randomness import torch_generator
from eyespot.recipes.sak.dense_losses import depth_loss, labelled_pixels
from eyespot.recipes.sak.level_teachers import LevelTeachers
from eyespot.recipes.sak.path_training import MultiTaskStudent, PathTraining

TINY: dict[str, Any] = {"img_size": 16, "patch_size": 8, "depth": 4, "num_heads": 2}
ENGINES = {1: PLAIN, 2: replace(PLAIN, devices=2, strategy="fsdp")}


class Pictures:
    """This process's share of random pictures."""

    def __init__(self, rank: int, size: int) -> None:
        self.share = slice(BATCH_SIZE * rank // size, BATCH_SIZE * (rank + 1) // size)

    def batch(self, step: int) -> dict[str, Any]:
        images = torch.rand(BATCH_SIZE, 3, 16, 24, generator=torch_generator("pictures", step))
        return {"step": step, "images": images[self.share], "failures": []}

    def batches(self, start_step: int = 0) -> Iterator[dict[str, Any]]:
        while True:
            yield self.batch(start_step)
            start_step += 1

    def fingerprint(self) -> str:
        return "random"


def vit(width: int) -> TimmEncoder:
    return create_timm_encoder("vit_tiny_patch16_224", pretrained=False, embed_dim=width, **TINY)


def train(rank: int, size: int, folder: Path) -> None:
    torch.manual_seed(0)
    teachers = LevelTeachers({"narrow": vit(16), "wide": vit(24)})
    students = {
        "paths": MultiTaskStudent(make_multitask_encoder(vit(16), ["narrow", "wide"], {})),
        "shared": MultiTaskStudent(make_multitask_encoder(vit(16), [], {}), "shared"),
    }
    task = PathTraining(students, teachers, standardizer="channel", statistics_steps=2)
    trained = make_trainer(
        folder, task=task, data=Pictures(rank, size), optim=toy_optim(steps=3), engine=ENGINES[size]
    ).train()
    if rank == 0:
        torch.save({name: student.state_dict() for name, student in trained.items()}, folder / "result.pt")


@pytest.mark.slow
def test_slices_on_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    for size in (1, 2):
        assert run_group(size, train, tmp_path / f"{size}") == ["done"] * size
    one, two = (torch.load(tmp_path / f"{size}" / "result.pt") for size in (1, 2))
    torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5)


def label_one(rank: int, size: int, folder: Path) -> None:
    """The first process has all labelled pixels but one."""
    start_fabric(ENGINES[2])
    output, label = torch.ones(size, 1, 4, 4), torch.full((size, 4, 4), 3.0)
    label[1] = 0
    label[1, 0, 0] = 9.0
    part = slice(rank, rank + 1)
    whole = labelled_pixels({"depth": "depth"}, {"depth": label[part]})["depth"]
    (folder / f"loss-{rank}").write_text(str(depth_loss(output[part], label[part], whole).item()))


def test_losses_of_labels_are_means_over_the_pixels_of_all_processes(tmp_path: Path) -> None:
    assert run_group(2, label_one, tmp_path) == ["done"] * 2
    losses = [float((tmp_path / f"loss-{rank}").read_text()) for rank in range(2)]
    assert sum(losses) / 2 == pytest.approx((16 * 2 + 8) / 17)
