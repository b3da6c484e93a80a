"""Two small teachers, trained here: one knows objects (a label per picture), one knows scenes (a label per patch)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from job import FREE_SIZE
from safetensors.torch import save_file
from torch import Tensor, nn

from eyespot.data.labelled.base import ClassificationData, SegmentationData

BATCH = 64
SMALLEST_CROP = 0.35


def train_objects(name: str, data: ClassificationData, size: int, steps: int, file: Path) -> float:
    """Trains a classifier and saves it without its head.

    Args:
        name: of a timm model.
        data: pictures with classes.
        size: side of the pictures in pixels.
        steps: optimiser steps.
        file: for the weights.

    Returns:
        Accuracy of the classifier on the validation pictures.
    """
    torch.manual_seed(1)
    model = build(name, len(data.classes))
    pictures, labels = data.train.pictures.read(0, len(data.train.labels), (size, size)), data.train.labels

    def loss() -> Tensor:
        chosen = torch.randint(len(labels), (BATCH,))
        images, _ = cropped(pictures[chosen], torch.zeros(BATCH, 1, size, size))
        with torch.autocast("cpu"):
            scores = model(images * 2 - 1)
        return F.cross_entropy(scores.float(), labels[chosen], label_smoothing=0.1)

    fit(model, loss, steps, 4e-3)
    model.eval()
    with torch.no_grad():
        held_out = data.val.pictures.read(0, len(data.val.labels), (size, size))
        guesses = torch.cat([model(part * 2 - 1).argmax(1) for part in held_out.split(128)])
    save_backbone(model, file)
    return float((guesses == data.val.labels).float().mean())


def train_scenes(name: str, data: SegmentationData, size: int, steps: int, file: Path) -> float:
    """Trains a classifier of patches and saves it without its head.

    Args:
        name: of a timm ViT.
        data: pictures with a class per pixel.
        size: side of the pictures in pixels.
        steps: optimiser steps.
        file: for the weights.

    Returns:
        Accuracy over the validation patches; a patch's class is that of its centre.
    """
    torch.manual_seed(2)
    backbone: Any = build(name, 0)
    model = nn.ModuleDict({"backbone": backbone, "head": nn.Linear(backbone.num_features, data.classes)})
    larger = size * 3 // 2
    (pictures, maps), (held_out, truth) = (
        read_maps(part, side) for part, side in ((data.train, larger), (data.val, size))
    )

    def scores(images: Tensor) -> Tensor:
        tokens = backbone.forward_features(images * 2 - 1)[:, backbone.num_prefix_tokens :]
        return model["head"](backbone.fc_norm(tokens)).float()

    def loss() -> Tensor:
        chosen = torch.randint(len(pictures), (BATCH,))
        images, seen = cropped(pictures[chosen], maps[chosen], size)
        with torch.autocast("cpu"):
            answer = scores(images)
        return F.cross_entropy(answer.flatten(0, 1), centres(seen, size), ignore_index=data.ignore)

    fit(model, loss, steps, 2e-3)
    model.eval()
    goal = centres(truth, size)
    with torch.no_grad():
        guesses = scores(held_out).flatten(0, 1).argmax(1)
    save_backbone(backbone, file)
    return float((guesses == goal)[goal != data.ignore].float().mean())


def build(name: str, classes: int) -> nn.Module:
    """A timm model from random weights."""
    free: dict[str, Any] = {"dynamic_img_size": True} if name.startswith(FREE_SIZE) else {}
    model: nn.Module = timm.create_model(name, num_classes=classes, **free)
    return model.to(memory_format=torch.channels_last)


def fit(model: nn.Module, loss: Any, steps: int, rate: float) -> None:
    """AdamW over a warm-up and a cosine."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps + 1, pct_start=0.15)
    model.train()
    for _ in range(steps):
        loss().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()


def cropped(images: Tensor, maps: Tensor, size: int | None = None) -> tuple[Tensor, Tensor]:
    """The same random square crop, and perhaps mirroring, of all pictures [B, 3, S, S] and label maps [B, 1, S, S]."""
    side = images.shape[-1]
    crop = max(16, int(side * math.sqrt(SMALLEST_CROP + (1 - SMALLEST_CROP) * float(torch.rand(())))))
    top, left = (int(torch.randint(side - crop + 1, ())) for _ in range(2))
    box = (..., slice(top, top + crop), slice(left, left + crop))
    target = size or side
    images = F.interpolate(images[box], size=(target, target), mode="bilinear", antialias=True)
    maps = F.interpolate(maps[box].float(), size=(target, target), mode="nearest")
    if torch.rand(()) < 0.5:
        images, maps = images.flip(3), maps.flip(3)
    return images.clamp(0, 1).contiguous(memory_format=torch.channels_last), maps


def read_maps(part: Any, side: int) -> tuple[Tensor, Tensor]:
    """Pictures [N, 3, side, side] and label maps [N, 1, side, side] of a segmentation split."""
    pictures = part.pictures.read(0, len(part.labels), (side, side))
    maps = [F.interpolate(label[None, None].float(), size=(side, side), mode="nearest")[0] for label in part.labels]
    return pictures, torch.stack(maps)


def centres(maps: Tensor, size: int, stride: int = 16) -> Tensor:
    """The label at each patch's centre, flat."""
    return maps[:, 0, stride // 2 :: stride, stride // 2 :: stride].flatten().long()


def save_backbone(model: Any, file: Path) -> None:
    """Saves the weights without a classifier."""
    if getattr(model, "num_classes", 0):
        model.reset_classifier(0)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, file)
