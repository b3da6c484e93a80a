"""What the paths of a multi-task model cost: a row for each number of paths that are on."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eyespot.encoders.multitask import MultiTaskEncoder
from eyespot.evaluate.cost import giga_macs, millions_of_parameters


@dataclass(frozen=True)
class PathCost:
    """The cost of one picture with some paths on, all tasks answered.

    Attributes:
        paths: which are on.
        parameters: in millions, at test time: without what is off, aligners and teachers (paper notes (g) 11).
        giga_macs: 10^9 multiply-accumulates, see `evaluate.cost.giga_macs`.
        milliseconds: median wall time; None if it was not measured.
    """

    paths: tuple[str, ...]
    parameters: float
    giga_macs: float
    milliseconds: float | None = None


def path_costs(
    model: MultiTaskEncoder, size: int | tuple[int, int] | None = None, timing: bool = False, rounds: int = 9
) -> list[PathCost]:
    """Costs with no path, the first one, the first two, ... all of them, in the order of the experts.

    Args:
        model: a multi-task model, which stays as it is; which of its paths are on does not matter.
        size: see `Encoder.fitting_size`.
        timing: whether to measure milliseconds, on as many threads as torch has now. The candidates take turns, so that
            what slows the machine slows all of them alike.
        rounds: turns of each, after one that is not counted.
    """
    height, width = model.fitting_size(size)
    picture = torch.full((1, 3, height, width), 0.5, device=model.device)
    choices = [model.path_names[:count] for count in range(len(model.path_names) + 1)]
    whole = model.trimmed(model.path_names).eval()
    times = _medians(whole, choices, picture, rounds) if timing else [None] * len(choices)
    rows = []
    for paths, milliseconds in zip(choices, times, strict=True):
        part = whole.trimmed(paths)
        parameters, macs = millions_of_parameters(part), giga_macs(part.predict, picture)
        rows.append(PathCost(paths, parameters or 0.0, macs or 0.0, milliseconds))
    return rows


@torch.inference_mode()
def _medians(model: MultiTaskEncoder, choices: Sequence[tuple[str, ...]], picture: Tensor, rounds: int) -> list[float]:
    """Milliseconds with each choice of paths, in turns; leaves the last choice on."""
    times: list[list[float]] = [[] for _ in choices]
    for turn in range(rounds + 1):
        for paths, own in zip(choices, times, strict=True):
            model.active = paths
            start = time.perf_counter()
            model.predict(picture)
            if picture.is_cuda:
                torch.cuda.synchronize(picture.device)
            if turn:
                own.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(own) for own in times]
