"""The whole EUPE recipe in seconds: two tiny teachers, a few random pictures, three stages of a few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import TypeAdapter
from safetensors.torch import load_file
from torch import Tensor

from eyespot.config import merged
from eyespot.recipes.eupe import EupeConfig
from tiny_engine import TINY_ENGINE

TEACHERS = '''
import torch
from torch import nn
from eyespot import Encoder, Features

class Tiny(Encoder):
    """Convolution and a narrower summary (a wider one would have directions without variance)."""

    def __init__(self, width, stride, side, seed, license):
        super().__init__()
        self.name, self.license = "tiny", license
        self.summary_dim, self.patch_dim, self.stride = width - 2, width, stride
        self.native_size, self.default_size = (side, side) if side else None, (side or 32, side or 32)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.patchify = nn.Conv2d(3, width, stride, stride=stride)
            self.mix = nn.Conv2d(width, width, 3, padding=1)
            self.head = nn.Linear(width, width - 2)

    def _encode(self, images):
        patches = self.mix(nn.functional.gelu(self.patchify(images)))
        return Features(self.head(patches.mean((2, 3))), patches)

def what():
    return Tiny(6, 16, 48, 1, "mit")

def where():
    return Tiny(5, 8, None, 2, "cc-by-nc-4.0")

def student():
    return Tiny(8, 16, None, 3, None)
'''


def write_pictures(folder: Path, count: int = 24) -> Path:
    """Random pictures of many sizes, some larger than the loader reads at full size for these stages."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        height, width = rng.integers(40, 260, 2)
        coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((int(width), int(height)), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number:02d}.{'png' if number % 2 else 'jpg'}")
    return folder


def write_teachers(folder: Path) -> list[str]:
    """Specs of two teachers that live in a Python file: different strides, widths, native sizes and licences."""
    file = folder / "teachers.py"
    file.write_text(TEACHERS)
    return [f"python/{file}:what", f"python/{file}:where"]


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    """A configuration as YAML would give it; pictures and teachers are in `folder`."""
    stage = {
        "steps": 4,
        "batch_size": 4,
        "learning_rate": 2e-3,
        "warmup_steps": 1,
        "adapter_width": 16,
        "statistics_steps": 2,
        "clip_norm": 1.0,
    }
    plain: dict[str, Any] = {
        "teachers": [f"python/{folder}/teachers.py:what", f"python/{folder}/teachers.py:where"],
        "data": {"sources": [str(folder / "pictures")]},
        "proxy": "timm/test_vit",
        "student": {"model": "timm/test_vit"},
        "stage1": {**stage, "student_sizes": [48]},
        "stage2": {**stage, "student_sizes": [32], "teacher_sizes": [32]},
        "stage3": {**stage, "student_sizes": [16, 32], "teacher_sizes": [32, 64]},
        "engine": TINY_ENGINE,
    }
    return merged(plain, changes)


def tiny_config(folder: Path, **changes: Any) -> EupeConfig:
    """The same, validated."""
    return TypeAdapter(EupeConfig).validate_python(settings(folder, **changes))


def all_stages(**changes: Any) -> dict[str, Any]:
    """Settings for every stage."""
    return {f"stage{number}": changes for number in (1, 2, 3)}


def weights(folder: Path) -> dict[str, Tensor]:
    """Tensors of a model folder, adapters included."""
    return load_file(folder / "model.safetensors") | load_file(folder / "adapters.safetensors")


def model_bytes(run: Path) -> dict[str, bytes]:
    """Every safetensors file of a run, byte for byte."""
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*.safetensors"))}
