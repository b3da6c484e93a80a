"""What an encoder costs: parameters, multiply-accumulates, milliseconds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from eyespot.encoders.base import Encoder
from eyespot.evaluate.extraction import eval_mode
from eyespot.evaluate.results import Column, Metric
from eyespot.flops import flop_counter

PARAMETERS = Column("cost", Metric("params", unit="M", higher_is_better=False))
MACS = Column("cost", Metric("GMACs", unit="", higher_is_better=False))
LATENCY = Column("cost", Metric("ms", unit="", higher_is_better=False))
COLUMNS = [PARAMETERS, MACS, LATENCY]
COLUMN_KEYS = [column.key for column in COLUMNS]

WARM_UP, RUNS = 2, 9


def cost(encoder: Encoder, size: int | tuple[int, int] | None, timing: bool) -> dict[str, float | None]:
    """The cost of one picture.

    Args:
        encoder: any encoder; looked at in eval mode. All its outputs count, those of every task too.
        size: see `Encoder.fitting_size`.
        timing: whether to measure milliseconds, the one number here that differs from run to run.

    Returns:
        Values by column key; None where another runtime hides it (an ONNX file's parameters and operations).
    """
    height, width = encoder.fitting_size(size)
    picture = torch.full((1, 3, height, width), 0.5, device=encoder.device)
    with eval_mode(encoder):
        values = {PARAMETERS.key: millions_of_parameters(encoder), MACS.key: giga_macs(encoder.named_outputs, picture)}
        return {**values, LATENCY.key: milliseconds(encoder.named_outputs, picture)} if timing else values


def millions_of_parameters(encoder: Encoder) -> float | None:
    """Millions of parameters; None if there are none to see."""
    count = sum(parameter.numel() for parameter in encoder.parameters())
    return count / 1e6 if count else None


@torch.inference_mode()
def giga_macs(encoder: Callable[[Tensor], object], picture: Tensor) -> float | None:
    """10^9 multiply-accumulates of matrix products, convolutions and attention, for one picture [1, 3, H, W].

    One multiply-accumulate is two floating-point operations. (EUPE's table counts operations for ViTs and
    multiply-accumulates for ConvNeXt; paper notes, B.4.) Element-wise work is not counted. None if nothing is seen.
    """
    with flop_counter() as counter:
        encoder(picture)
    operations = counter.get_total_flops()
    return operations / 2e9 if operations else None


@torch.inference_mode()
def milliseconds(encoder: Callable[[Tensor], object], picture: Tensor) -> float:
    """Median wall time of one picture, after warming up; with as many threads as torch has now."""
    times = []
    for run in range(WARM_UP + RUNS):
        start = time.perf_counter()
        encoder(picture)
        if picture.is_cuda:
            torch.cuda.synchronize(picture.device)
        if run >= WARM_UP:
            times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)
