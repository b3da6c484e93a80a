"""An own teacher: a network of yours joins a committee as `python/teacher.py:load`."""

import sys

import torch
from torch import Tensor, nn

from eyespot import Encoder, Features
from eyespot.config import build, merged
from eyespot.recipes.eupe import EupeConfig, distill
from eyespot.recipes.presets import read_settings


class Teacher(Encoder):
    """Says what it must about itself, and turns normalised pictures into features."""

    def __init__(self, network: nn.Module, width: int, stride: int) -> None:
        super().__init__(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))  # what the network was trained with
        self.network = network
        self.summary_dim = self.patch_dim = width
        self.stride = stride  # pixels of the picture per cell of the map
        self.default_size = (64, 64)  # what it was made for; any multiple of the stride will do
        self.license = "mit"  # goes into the student's card

    def _encode(self, images: Tensor) -> Features:
        """[B, 3, H, W], normalised -> a vector per picture and a map."""
        patches = self.network(images)
        return Features(patches.mean((2, 3)), patches)


def load(width: int = 24) -> Encoder:
    """What the spec names; `python/teacher.py:load?width=32` hands options over."""
    torch.manual_seed(0)  # in place of reading your weights
    network = nn.Sequential(nn.Conv2d(3, width, 8, 8), nn.GELU(), nn.Conv2d(width, width, 3, padding=1))
    return Teacher(network, width, stride=8)


if __name__ == "__main__":
    stage = {"batch_size": 8, "student_sizes": [32], "adapter_width": 16}
    changes = {
        "teachers": [f"python/{__file__}:load", "timm/test_resnet?pretrained=false"],
        "data": {"sources": ["toybox:16@64"]},
        "student": {"model": "timm/test_vit"},
        "steps": 3,
        "stage2": stage,
    }
    config = build(EupeConfig, merged(read_settings("eupe", ["laptop", "direct"]), changes), "teacher.py")
    print(distill(config, sys.argv[1] if len(sys.argv) > 1 else "runs/teacher"))
