"""An own student: a network of yours is trained as `python/student.py:make`, and loads from its run afterwards."""

import sys

import torch
from torch import Tensor, nn

from eyespot import Encoder, Features, load_encoder
from eyespot.config import build, merged
from eyespot.recipes.eupe import EupeConfig, distill
from eyespot.recipes.presets import read_settings


class Student(Encoder):
    """Two convolutions and a summary that is more than a mean."""

    def __init__(self, width: int) -> None:
        super().__init__()  # pictures in [0, 1] as they are
        self.summary_dim, self.patch_dim, self.stride = 2 * width, width, 16
        self.default_size = (32, 32)
        self.stem = nn.Sequential(nn.Conv2d(3, width, 4, 4), nn.GELU())
        self.body = nn.Sequential(nn.Conv2d(width, width, 4, 4), nn.GELU(), nn.Conv2d(width, width, 1))
        self.head = nn.Linear(width, 2 * width)

    def _encode(self, images: Tensor) -> Features:
        patches = self.body(self.stem(images))
        return Features(self.head(patches.mean((2, 3))), patches)


def make(width: int = 32) -> Encoder:
    """An untrained student; `python/student.py:make?width=48` is a wider one. The run seeds its weights."""
    return Student(width)


if __name__ == "__main__":
    run = sys.argv[1] if len(sys.argv) > 1 else "runs/student"
    changes = {
        "teachers": ["timm/test_resnet?pretrained=false"],
        "data": {"sources": ["toybox:16@64"]},
        "student": {"model": f"python/{__file__}:make?width=16"},
        "steps": 3,
        "stage2": {"batch_size": 8, "student_sizes": [32], "adapter_width": 16},
    }
    config = build(EupeConfig, merged(read_settings("eupe", ["laptop", "direct"]), changes), "student.py")
    distill(config, run)
    encoder = load_encoder(f"run/{run}")  # `eyespot evaluate` and `eyespot export` take run/... as well
    print(encoder.name, tuple(encoder(torch.rand(1, 3, 64, 64)).summary.shape))
