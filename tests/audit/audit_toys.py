"""Teachers and students whose relations are known by construction, and the pictures that tell them apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from eyespot import Encoder, Features
from eyespot.audit import AuditConfig
from eyespot.data import DataConfig, ViewConfig
from eyespot.engine.config import EngineConfig

STRIDE, SIDE = 8, 32


class Colours(Encoder):
    """Waves over the mean value of one colour channel in each cell, so each teacher sees what the others cannot.

    Args:
        channel: which of red, green and blue.
        mix: seed of a random rotation on top; None for none.
    """

    def __init__(self, channel: int, mix: int | None = None, width: int = 6) -> None:
        super().__init__()
        self.name, self.license = f"colour {channel}", "mit"
        self.summary_dim = self.patch_dim = width
        self.stride, self.default_size = STRIDE, (SIDE, SIDE)
        self.channel = channel
        generator = torch.Generator().manual_seed(mix or 0)
        start = torch.eye(width) if mix is None else torch.linalg.qr(torch.randn(width, width, generator=generator)).Q
        self.mix = nn.Parameter(start)

    def _encode(self, images: torch.Tensor) -> Features:
        values = nn.functional.avg_pool2d(images[:, self.channel : self.channel + 1], STRIDE) - 0.5
        steps = torch.arange(1, self.patch_dim // 2 + 1).view(1, -1, 1, 1)
        waves = torch.cat([torch.sin(2 * steps * values), torch.cos(2 * steps * values)], dim=1)
        patches = torch.einsum("oc,bchw->bohw", self.mix, waves)
        return Features(patches.mean((2, 3)), patches)


class Student(Encoder):
    """A convolution per cell and two layers on it; as narrow as you like."""

    def __init__(self, width: int = 8) -> None:
        super().__init__(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
        self.name, self.license = "student", None
        self.summary_dim = self.patch_dim = width
        self.stride, self.default_size = STRIDE, (SIDE, SIDE)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, STRIDE, STRIDE), nn.GELU(), nn.Conv2d(16, 16, 1), nn.GELU(), nn.Conv2d(16, width, 1)
        )

    def _encode(self, images: torch.Tensor) -> Features:
        patches = self.layers(images)
        return Features(patches.mean((2, 3)), patches)


def red() -> Encoder:
    return Colours(0)


def red_mixed() -> Encoder:
    return Colours(0, mix=3)


def green() -> Encoder:
    return Colours(1)


def blue() -> Encoder:
    return Colours(2)


def student() -> Encoder:
    return Student()


def starved() -> Encoder:
    """Two numbers, of which the heads' layer norm leaves one: an angle."""
    return Student(2)


def spec(name: str) -> str:
    return f"python/{__file__}:{name}"


def write_cells(folder: Path, count: int = 96) -> Path:
    """Pictures of cells whose red, green and blue have nothing to do with each other."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        cells = rng.integers(0, 256, (SIDE // STRIDE, SIDE // STRIDE, 3), dtype=np.uint8)
        Image.fromarray(cells).resize((SIDE, SIDE), Image.Resampling.NEAREST).save(folder / f"{number:03d}.png")
    return folder


def data(folder: Path) -> DataConfig:
    """Whole pictures, unchanged."""
    return DataConfig(sources=[str(folder)], view=ViewConfig.plain(), keep_decoded=True)


def config(**changes: Any) -> AuditConfig:
    """An audit of seconds."""
    settings: dict[str, Any] = {
        "student": spec("student"),
        "size": SIDE,
        "steps": 4,
        "batch_size": 16,
        "learning_rate": 1e-2,
        "adapter_width": 16,
        "seeds": (0, 1),
        "held_out": 32,
        "conflict_steps": 2,
        "engine": EngineConfig(accelerator="cpu", precision="32-true", tensorboard=False, progress=False),
    }
    return AuditConfig(**settings | changes)
