"""EUPE's entries for the shared test case, and its official layout with random values, written down from the spec."""

import math
from pathlib import Path

import torch

from eyespot.randomness import torch_generator

VITS = {"vitt16": (192, 3), "vits16": (384, 6), "vitb16": (768, 12)}  # width, heads
CONVNEXTS = {
    "convnext_tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "convnext_small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "convnext_base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
}


class Drawer:
    """Random tensors of every kind, so large that nothing left out goes unnoticed."""

    def __init__(self, name):
        self.generator = torch_generator("official EUPE file", name)

    def randn(self, *shape, mean=0.0, std=1.0):
        return torch.randn(shape, generator=self.generator) * std + mean

    def weight(self, *shape):
        return self.randn(*shape, std=1 / math.sqrt(math.prod(shape[1:])))

    def linear(self, place, *shape):
        return {f"{place}.weight": self.weight(*shape), f"{place}.bias": self.randn(shape[0], std=0.2)}

    def norm(self, place, width):
        return {
            f"{place}.weight": self.randn(width, mean=1.0, std=0.2),
            f"{place}.bias": self.randn(width, std=0.2),
        }


def vit_state(name):
    """EUPE D.1: 188 tensors, key bias and mask token not zero, as nothing says that they are."""
    width, _ = VITS[name]
    draw = Drawer(name)
    state = {
        "cls_token": draw.randn(1, 1, width),
        "storage_tokens": draw.randn(1, 4, width),
        "mask_token": draw.randn(1, width),
        **draw.linear("patch_embed.proj", width, 3, 16, 16),
        "rope_embed.periods": torch.tensor([100.0 ** (2 * i / 32) for i in range(16)]),
    }
    for number in range(12):
        block = f"blocks.{number}"
        state |= {
            **draw.norm(f"{block}.norm1", width),
            **draw.linear(f"{block}.attn.qkv", 3 * width, width),
            f"{block}.attn.qkv.bias_mask": torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(width),
            **draw.linear(f"{block}.attn.proj", width, width),
            f"{block}.ls1.gamma": draw.randn(width, mean=0.3, std=0.2),
            **draw.norm(f"{block}.norm2", width),
            **draw.linear(f"{block}.mlp.fc1", 4 * width, width),
            **draw.linear(f"{block}.mlp.fc2", width, 4 * width),
            f"{block}.ls2.gamma": draw.randn(width, mean=0.3, std=0.2),
        }
    return state | draw.norm("norm", width)


def convnext_state(name):
    """EUPE D.2: 182 or 344 tensors, the last two being those of `norm` again."""
    depths, widths = CONVNEXTS[name]
    draw = Drawer(name)
    state = {
        **draw.linear("downsample_layers.0.0", widths[0], 3, 4, 4),
        **draw.norm("downsample_layers.0.1", widths[0]),
    }
    for stage in (1, 2, 3):
        state |= draw.norm(f"downsample_layers.{stage}.0", widths[stage - 1])
        state |= draw.linear(f"downsample_layers.{stage}.1", widths[stage], widths[stage - 1], 2, 2)
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        for block in (f"stages.{stage}.{number}" for number in range(depth)):
            state |= {
                f"{block}.gamma": draw.randn(width, mean=0.3, std=0.2),
                **draw.linear(f"{block}.dwconv", width, 1, 7, 7),
                **draw.norm(f"{block}.norm", width),
                **draw.linear(f"{block}.pwconv1", 4 * width, width),
                **draw.linear(f"{block}.pwconv2", width, 4 * width),
            }
    state |= draw.norm("norm", widths[-1])
    return state | {f"norms.3.{kind}": state[f"norm.{kind}"].clone() for kind in ("weight", "bias")}


def official_state(name):
    """A random state dict in the official layout."""
    return vit_state(name) if name in VITS else convnext_state(name)


def projector_state(width, hidden=40, out=24):
    """Heads towards a proxy as section 4.1 describes them, under names that we made up."""
    draw = Drawer("projectors")
    state = {}
    for part in ("cls_token", "patch_tokens"):
        place = f"projectors.heads.dinov3radio_{part}.mlp"
        state |= {
            f"{place}.0.weight": draw.weight(hidden, width),
            **draw.norm(f"{place}.1", hidden),
            f"{place}.3.weight": draw.weight(out, hidden),
        }
    return state


def _official_file(name):
    def write(folder: Path) -> str:
        file = folder / f"{name}.pt"
        torch.save(official_state(name), file)
        return f"eupe/{name}?weights={file}"

    return write


ENTRIES = {f"eupe {name}": _official_file(name) for name in ("vitt16", "convnext_tiny")}
