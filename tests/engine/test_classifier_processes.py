"""A classifier recipe on two processes, in micro-batches, gives what it gives on one as a whole."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from process_groups import run_group
from safetensors.torch import load_file

from eyespot.config import build
from eyespot.engine.metrics import read_lines
from eyespot.recipes import RECIPES
from tiny_engine import TINY_ENGINE


def write_pictures(folder: Path) -> Path:
    draws = np.random.default_rng(0)
    for number in range(12):
        kind = folder / f"class-{number % 3}"
        kind.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(kind / f"{number}.png")
    return folder


def distil(rank: int, size: int, folder: Path, pictures: Path) -> None:
    """Networks without batch norm, which sees a process's own pictures only; parts are odd numbers of pictures."""
    settings: dict[str, Any] = {
        "teacher": "timm/test_vit2?pretrained=false&num_classes=3&drop_path_rate=0",
        "data": {"sources": [str(pictures)]},
        "student": {"model": ["timm/test_vit"], "method": ["kd", "dkd"]},
        "training": {"steps": 4, "batch_size": 6, "learning_rate": 1e-3, "accumulate": 2 * size - 1},
        "mix": {"mixup": 0.8, "cutmix": 1.0},
        "student_size": 32,
        "teacher_size": 32,
        "engine": {**TINY_ENGINE, "devices": size},
    }
    torch.manual_seed(5)  # the teacher's weights
    recipe = RECIPES["vanilla_kd"]
    recipe.distill(build(recipe.config_class, settings, "test"), folder / "run")


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures")
    for size in (1, 2):
        assert run_group(size, distil, tmp_path / f"{size}", pictures) == ["done"] * size
    one, two = (read_lines(tmp_path / f"{size}/run/metrics.jsonl") for size in (1, 2))
    assert [line["step"] for line in two] == [1, 2, 3, 4]
    for left, right in zip(one, two, strict=True):
        for name in ("loss", "kd/label", "kd/kd", "dkd/dkd", "kd/grad_norm"):
            assert left[name] == pytest.approx(right[name], rel=2e-4), (left["step"], name)
    for student in ("kd", "dkd"):
        ours, theirs = (load_file(tmp_path / f"{size}/run/students/{student}/model.safetensors") for size in (1, 2))
        assert all(torch.allclose(ours[name], theirs[name], atol=1e-3) for name in ours)
