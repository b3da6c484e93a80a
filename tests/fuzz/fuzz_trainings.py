"""Trainings of a step or two under settings that were drawn: they end with a student and finite losses, or are refused
by name. Seconds each, so for the benchmark alone."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
from fuzzing import Case, Wrong
from PIL import Image

from eyespot.config import build, merged
from eyespot.engine.metrics import read_lines
from eyespot.recipes import RECIPES
from tiny_engine import TINY_ENGINE

MODELS = ("timm/test_vit", "timm/test_resnet", "timm/test_efficientnet?branches=2", "timm/test_convnext")
METHODS = ("kd", "bkd", "dkd", "dist", "ofa", "fitnet", "cc", "rkd", "crd", "none")
CHOICES: dict[str, tuple[Any, ...]] = {
    "student_size": (16, 32, 33, 48),
    "teacher_size": (32, 40),
    "training.steps": (1, 2),
    "training.batch_size": (1, 2, 3, 4),
    "training.learning_rate": (1e-4, 1e-1, 1e3),
    "training.clip_norm": (None, 1.0, 1e-6),
    "training.ema_decay": (None, 0.5, 0.999),
    "training.optimizer": ("adamw", "sgd", "lamb", "rmsprop"),
    "training.schedule": ("cosine", "step", "polynomial"),
    "data.repeats": (1, 2, 3),
    "data.views": (None, 1),
    "data.view.randaugment": (None, "rand-m6"),
    "data.view.erase": (0.0, 1.0),
    "data.workers": (0, 0, 1),
    "mix.mixup": (0.0, 0.8),
    "mix.cutmix": (0.0, 1.0),
    "label.weight": (0.0, 1.0),
    "mix.label_smoothing": (0.0, 0.1),
    "training.accumulate": (1, 2),
    "engine.max_tokens": (None, 1, 100),
    "engine.precision": ("32-true", "bf16-mixed", "16-mixed"),
    "seed": (0, 2**31),
}


def _pictures(folder: Path) -> Path:
    draws = np.random.default_rng(0)
    for number in range(8):
        file = folder / ("a", "b", "c", "d")[number % 4] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(file)
    return folder


def draw(rng: random.Random, folder: Path) -> Case:
    recipe = rng.choice(("vanilla_kd", "ofa_kd", "ghostnet_v3"))
    settings: dict[str, Any] = {
        "teacher": f"{rng.choice(MODELS[:2])}?pretrained=false&num_classes=4",
        "data": {"sources": [str(_pictures(folder / "pictures"))]},
        "student": {"model": [rng.choice(MODELS)], "method": [rng.choice(METHODS)]},
        "training": {"steps": 1, "batch_size": 4, "learning_rate": 1e-3},
        "student_size": 32,
        "teacher_size": 32,
        "engine": TINY_ENGINE,
    }
    names = rng.sample(list(CHOICES), 5)
    for name in names:
        value = rng.choice(CHOICES[name])
        for part in reversed(name.split(".")):
            value = {part: value}
        settings = merged(settings, value)

    def act() -> Path:
        return RECIPES[recipe].distill(build(RECIPES[recipe].config_class, settings, "fuzz"), folder / "run")

    def judge(student: Path, warned: list[str]) -> None:
        if not (student / "model.safetensors").is_file():
            raise Wrong("no student")
        losses = [line["loss"] for line in read_lines(folder / "run" / "metrics.jsonl") if "loss" in line]
        if not losses or not all(math.isfinite(loss) for loss in losses):
            raise Wrong(f"losses {losses}")

    told = [part for name in (*names, "student.method", "student.model") for part in (name, name.split(".")[-1])]
    words = f"{recipe} {settings['student']} {[(name, CHOICES[name]) for name in names]}"
    return Case(words, act, [*told, "loss", "learning rate", "num_classes", settings["student"]["method"][0]], judge)
