"""The models to be timed: what is known of each before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from eyespot.deploy.benchmark.loading import seeded_encoder
from eyespot.deploy.benchmark.table import Group
from eyespot.encoders.identity import weights_hash
from eyespot.evaluate.cost import giga_macs, millions_of_parameters

WantedSize = int | str | tuple[int, int]


@dataclass(frozen=True)
class TimedModel:
    """A model to be timed.

    Attributes:
        model: its spec.
        groups: what it is timed at: a group for each size and batch.
        weights: hash of its weights.
        file_format: of a file of another runtime, which is timed as it is; None for a model of torch.
    """

    model: str
    groups: tuple[Group, ...]
    weights: str
    file_format: str | None


def read_timed_model(model: str, sizes: Sequence[WantedSize], batches: Sequence[int]) -> TimedModel:
    """Loads a model and finds out what is asked of it.

    Args:
        model: spec for `load_encoder`.
        sizes: sides of squares, (height, width), "256" or "256x192"; the model's default size if empty.
        batches: pictures per run.

    Raises:
        ValueError: a size that the model cannot take; says which would do.
    """
    encoder = seeded_encoder(model)
    groups = []
    parameters = millions_of_parameters(encoder)
    wanted = list(dict.fromkeys(read_size(size) for size in sizes)) or [encoder.default_size]
    for size in wanted:
        problem = encoder.size_error(*size)
        if problem:
            raise ValueError(f"{model} {problem}")
    is_file = bool(encoder.files)
    for size in wanted:
        macs = None if is_file else giga_macs(encoder.named_outputs, torch.full((1, 3, *size), 0.5))
        groups += [Group(model, size, batch, parameters, macs) for batch in dict.fromkeys(batches)]
    return TimedModel(model, tuple(groups), weights_hash(encoder), model.partition("/")[0] if is_file else None)


def read_size(size: WantedSize) -> tuple[int, int]:
    """(height, width) in pixels of 256, "256", "256x192" or (256, 192).

    Raises:
        ValueError: none of these.
    """
    sides = str(size).lower().split("x") if isinstance(size, int | str) else [str(side) for side in size]
    if len(sides) > 2 or not all(side.strip().isdecimal() for side in sides):
        raise ValueError(f"a size is written 256 or 256x192 (height x width, in pixels), not {size!r}")
    height, width = int(sides[0]), int(sides[-1])
    return height, width
