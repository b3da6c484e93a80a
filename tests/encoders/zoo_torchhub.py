"""torch.hub's entries for the shared test case: tiny clones of repositories that give features in each known way."""

from pathlib import Path

MODELS = '''
"""A made-up repository of models."""

from collections import namedtuple

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.mlp = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = x + F.scaled_dot_product_attention(q, k, v)
        return x + F.gelu(self.mlp(self.norm2(x)))


class Tokens(nn.Module):
    """Class token, two registers, patches."""

    def __init__(self, width, patch_size):
        super().__init__()
        self.patch_size = patch_size
        self.patch_embed = nn.Conv2d(3, width, patch_size, patch_size)
        self.prefix = nn.Parameter(torch.randn(1, 3, width))
        self.blocks = nn.ModuleList([Block(width), Block(width)])
        self.norm = nn.LayerNorm(width)

    def run(self, images):
        tokens = self.patch_embed(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.prefix.expand(len(images), -1, -1), tokens], 1)
        seen = []
        for block in self.blocks:
            x = block(x)
            seen.append(x)
        return seen


class Dino(Tokens):
    """As DINOv2, DINOv3 and EUPE give their features."""

    def forward_features(self, images):
        x = self.norm(self.run(images)[-1])
        return {
            "x_norm_clstoken": x[:, 0],
            "x_storage_tokens": x[:, 1:3],
            "x_norm_patchtokens": x[:, 3:],
            "x_prenorm": x,
            "masks": None,
        }

    def forward(self, images):
        return self.forward_features(images)["x_norm_clstoken"]

    def get_intermediate_layers(self, images, n=1, reshape=False, return_class_token=False, norm=True):
        seen = self.run(images)
        chosen = seen[-n:] if isinstance(n, int) else [seen[i] for i in n]
        chosen = [self.norm(x) if norm else x for x in chosen]
        if not reshape:
            return tuple(x[:, 3:] for x in chosen)
        height, width = (side // self.patch_size for side in images.shape[2:])
        return tuple(x[:, 3:].transpose(1, 2).unflatten(2, (height, width)) for x in chosen)


RadioOutput = namedtuple("RadioOutput", ["summary", "features"])
Resolution = namedtuple("Resolution", ["height", "width"])


class Radio(Tokens):
    """As RADIO does: pictures in [0, 1] in, a summary of several class tokens out."""

    preferred_resolution = Resolution(64, 96)

    def forward(self, images):
        x = self.run((images - 0.5) / 0.25)[-1]
        return RadioOutput(x[:, :2].flatten(1), x[:, 3:])
'''

HUBCONF = """
dependencies = ["torch"]

import os
import sys

sys.path.insert(0, os.path.dirname(__file__))
from PACKAGE.models import Dino, Radio

sys.path.pop(0)


def dino(*, pretrained=True, weights="OFFICIAL", patch_size=16, **kwargs):
    assert not pretrained, "a download was asked for"
    return Dino(24, patch_size, **kwargs)


def radio(version="", patch_size=16):
    return Radio(24, patch_size)


def timm_model(pretrained=True, **kwargs):
    import timm

    return timm.create_model("test_vit", pretrained=pretrained, num_classes=0, dynamic_img_size=True, **kwargs)
"""


def write_clone(folder: Path, hubconf: str = HUBCONF) -> Path:
    """A clone with a package that no other clone has, as Python keeps one package of a name."""
    package = f"hub_{abs(hash(str(folder)))}"
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").touch()
    (folder / package / "models.py").write_text(MODELS)
    (folder / "hubconf.py").write_text(hubconf.replace("PACKAGE", package))
    return folder


def _entry(target: str):
    return lambda folder: f"torchhub/{write_clone(folder)}:{target}"


ENTRIES = {
    "torchhub dino": _entry("dino?pretrained=false"),
    "torchhub dino, patches of 14": _entry("dino?pretrained=false&patch_size=14"),
    "torchhub radio": _entry("radio"),
    "torchhub timm": _entry("timm_model?pretrained=false"),
}
