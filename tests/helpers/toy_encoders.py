"""Tiny encoders for the tests of this floor: a convolution as patch embedding, a linear summary."""

import torch
from torch import nn

from eyespot import Encoder, Features
from eyespot.randomness import torch_generator


class ToyEncoder(Encoder):
    """Weights follow from the name; `calls` counts the pictures it has looked at."""

    def __init__(self, name="toy", summary_dim=6, patch_dim=5, stride=8, native_size=None, default_size=(32, 32)):
        super().__init__(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
        self.name, self.summary_dim, self.patch_dim, self.stride = name, summary_dim, patch_dim, stride
        self.native_size, self.default_size, self.license = native_size, native_size or default_size, "mit"
        self.embed = nn.Conv2d(3, patch_dim, stride, stride)
        self.norm = nn.BatchNorm2d(patch_dim)
        self.pool = nn.Linear(patch_dim, summary_dim)
        generator = torch_generator(name)
        with torch.no_grad():
            for weight in self.parameters():
                weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
        self.calls = 0

    def _encode(self, images):
        self.calls += len(images)
        maps = self.norm(self.embed(images))
        return Features(self.pool(maps.mean((2, 3))), maps)


def pictures(count=4, side=48, key=0):
    """uint8 pictures [count, 3, side, side]."""
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch_generator("toy", key))


def make_batch(count=4, side=48, step=0, key=0, **columns):
    return {"images": pictures(count, side, key), "step": step, **columns}
