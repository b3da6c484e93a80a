"""Committee: several frozen teachers that look at the same pictures."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyespot.encoders import Encoder, load_encoder
from eyespot.encoders.licenses import refuse_restricted, timm_license
from eyespot.features import Features
from eyespot.specs import read_options


class Committee(nn.Module):
    """Frozen teachers of any stride, width and native size.

    Args:
        teachers: encoders by name.
        max_grid: teacher maps with more rows or columns than this are averaged down to it (ours; saves memory where a
            teacher's stride is much finer than the student's). None keeps them.

    Raises:
        ValueError: no teachers.
    """

    def __init__(self, teachers: Mapping[str, Encoder], max_grid: int | None = None) -> None:
        super().__init__()
        if not teachers:
            raise ValueError("a committee needs at least one teacher")
        self.teachers = nn.ModuleDict(teachers)
        self.max_grid = max_grid
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Committee:
        """Teachers stay in eval mode, whatever the task around them does."""
        return super().train(False)

    def items(self) -> Iterable[tuple[str, Encoder]]:
        """(name, teacher) pairs."""
        return self.teachers.items()  # type: ignore[return-value]

    @torch.no_grad()
    def forward(self, batch: Mapping[str, Any], size: int | None = None) -> dict[str, Features]:
        """Features of every teacher for the batch's pictures, in float32.

        Args:
            batch: `images` [B, 3, S, S], uint8 or floats in [0, 1].
            size: side in pixels for teachers that take any, rounded to their stride; None is each teacher's default.
        """
        images = as_unit_floats(batch["images"])
        return {name: self.look(teacher, images, size) for name, teacher in self.items()}

    def look(self, teacher: Encoder, images: Tensor, size: int | None = None) -> Features:
        """One teacher's features [B, C], [B, D, h, w] of pictures in [0, 1] of any size."""
        features = teacher(resize_pictures(images, teacher.fitting_size(size))).float()
        return self._limited(features)

    def _limited(self, features: Features) -> Features:
        grid = features.grid
        if self.max_grid is None or max(grid) <= self.max_grid:
            return features
        smaller = (min(grid[0], self.max_grid), min(grid[1], self.max_grid))
        return Features(features.summary, F.adaptive_avg_pool2d(features.patches, smaller))


def load_committee(specs: Iterable[str], max_grid: int | None = None) -> Committee:
    """Loads teachers by spec, under short unique names."""
    specs = list(specs)
    return Committee({name: load_encoder(spec) for name, spec in zip(short_names(specs), specs, strict=True)}, max_grid)


def require_permissive(specs: Iterable[str]) -> None:
    """Refuses models whose licence, or that of anything they were distilled from, is not permissive.

    Models of timm are asked first, of its registry, so that nothing is fetched for a committee that they have refused;
    others are loaded to ask them.

    Raises:
        ValueError: names each such model, its licence and what to do.
    """
    specs = list(specs)
    registered = {spec: licences for spec in specs if (licences := _registered_licences(spec)) is not None}
    refuse_restricted(registered)
    encoders = {spec: load_encoder(spec) for spec in specs if spec not in registered}
    refuse_restricted(
        {spec: [entry["licence"] for entry in one.lineage] or [one.license] for spec, one in encoders.items()}
    )


def has_random_weights(spec: str) -> bool:
    """Whether a spec, or the name of an encoder, says that the model starts from random weights."""
    options = read_options(spec.partition("?")[2])
    return options.get("pretrained") is False and "weights" not in options


def _registered_licences(spec: str) -> list[str | None] | None:
    """What spec and registry say of a model of timm without loading it; None for other models."""
    path, _, query = spec.partition("?")
    name, options = path.removeprefix("timm/"), read_options(query)
    if not path.startswith("timm/") or not timm.is_model_pretrained(name):
        return None
    if "license" in options:
        return [str(options["license"])]
    if "weights" in options or options.get("pretrained") is False:
        return [None]
    return [timm_license(timm.get_pretrained_cfg(name).to_dict())]


def short_names(specs: Iterable[str]) -> list[str]:
    """A short unique name for each spec: "onnx/a/depth.onnx" -> "depth", "run/runs/x/experts/what" -> "what"."""
    names: list[str] = []
    taken = nn.ModuleDict()  # torch refuses modules named like its own attributes ("keys")
    for spec in specs:
        stem = spec.partition("?")[0].rstrip("/").rpartition("/")[2].rpartition(":")[2]
        stem = re.sub(r"\.onnx$", "", stem)
        base = re.sub(r"[^0-9A-Za-z_-]+", "_", stem)
        numbered = itertools.chain([base], (f"{base}-{number}" for number in itertools.count(2)))
        names.append(next(name for name in numbered if name not in names and not hasattr(taken, name)))
    return names


def as_unit_floats(images: Tensor) -> Tensor:
    """uint8 pictures as floats in [0, 1]; floats unchanged."""
    return images if images.is_floating_point() else images.float().div_(255)


def resize_pictures(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures [B, 3, H, W] in [0, 1] at another size: bilinear with antialiasing, which cannot leave [0, 1]."""
    if images.shape[2:] == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)
