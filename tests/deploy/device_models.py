"""Models that every format is tried on in the slow tests, each at one size; `benchmarks/export_matrix.py` has more.

And a network that is hard on converters.
"""

import torch
import torch.nn.functional as F
from torch import nn

from eyespot.deploy.graph import Graph

DEVICE_MODELS = (
    ("vit_tiny_patch16_dinov3_qkvb", (256, 192)),
    ("convnext_tiny", (224, 224)),
    ("mobilenetv4_conv_small", (256, 192)),
    ("fastvit_t8", (256, 192)),
    ("ghostnetv3_100", (224, 224)),  # enlarges 3 cells to 7 at this size, which some converters get wrong
)


class Enlarging(nn.Module):
    """3 rows become 7, which converters get wrong by themselves."""

    def forward(self, images):
        patches = F.interpolate(F.avg_pool2d(images, 8), (7, 6))
        return patches.mean((2, 3)), patches


def enlarging():
    images = torch.rand(1, 3, 24, 24)
    program = torch.export.export(Enlarging(), (images,))
    return Graph(program, ("summary", "patches"), 1, (24, 24), 8, {"name": "enlarging"}), images
