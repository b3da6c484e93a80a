"""The machine's own peak: the fastest matrix product that torch gets out of it, in float32, bfloat16 and int8."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PRECISIONS = ("float32", "bfloat16", "int8")
SHAPES = ((512, 1024, 512), (1024, 1024, 1024), (2048, 1024, 2048))
"""Rows, inner, columns. Larger ones are faster on a quiet machine; the smallest is short enough to run between two
interruptions on a busy one."""

TRIAL_SECONDS, TURN_SECONDS, KEPT = 0.1, 0.04, 2

Product = Callable[[], object]


@dataclass(frozen=True)
class Candidate:
    """A matrix product, ready to run.

    Attributes:
        name: which library call.
        precision: of its inputs.
        operations: of one call; a multiply-accumulate is two.
        run: the call.
    """

    name: str
    precision: str
    operations: int
    run: Product

    def speed(self, seconds: float) -> float:
        """Operations a second of the fastest of several calls, two at least, for about that long."""
        times = [_seconds(self.run), _seconds(self.run)]
        while sum(times) < seconds:
            times.append(_seconds(self.run))
        return self.operations / min(times)


class MatrixPeak:
    """Measures the matrix peak again and again, so that changes of the clock are seen.

    Several library calls compete on several shapes once; the two fastest of each precision are kept for `measure`.
    float32 is computed by torch's BLAS and by oneDNN, which is often faster on processors not made by the BLAS's
    vendor; bfloat16 and int8 by oneDNN. Uses as many threads as torch has now.
    """

    def __init__(self, shapes: tuple[tuple[int, int, int], ...] = SHAPES) -> None:
        candidates = [made for kernel, shape in itertools.product(_KERNELS, shapes) if (made := _made(*kernel, shape))]
        speeds = [candidate.speed(TRIAL_SECONDS) for candidate in candidates]
        ranked = [candidates[number] for number in sorted(range(len(candidates)), key=lambda number: -speeds[number])]
        self.kept = {key: [entry for entry in ranked if entry.precision == key][:KEPT] for key in PRECISIONS}

    def measure(self) -> dict[str, float | None]:
        """10^9 operations a second by precision, a tenth of a second each.

        A precision that is no faster than float32 has no fast product in torch on this machine: None.
        """
        found = {
            key: max((candidate.speed(TURN_SECONDS) for candidate in kept), default=0.0) / 1e9
            for key, kept in self.kept.items()
        }
        return {key: speed if key == "float32" or speed > found["float32"] else None for key, speed in found.items()}


def _seconds(run: Product) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _blas(rows: Tensor, columns: Tensor) -> Product:
    return lambda: torch.mm(rows, columns)


def _onednn(rows: Tensor, columns: Tensor) -> Product:
    left, right = rows.to_mkldnn(), columns.t().contiguous().to_mkldnn()
    return lambda: F.linear(left, right)


def _linear(rows: Tensor, columns: Tensor) -> Product:
    left, right = rows.bfloat16(), columns.t().contiguous().bfloat16()
    return lambda: F.linear(left, right)


def _int8(rows: Tensor, columns: Tensor) -> Product:
    left, right = (side.mul(40).round().clamp(-127, 127).to(torch.int8) for side in (rows, columns))
    return lambda: torch._int_mm(left, right)  # no public name; oneDNN's s8 x s8 -> s32


_KERNELS = (
    ("BLAS", "float32", _blas),
    ("oneDNN", "float32", _onednn),
    ("oneDNN", "bfloat16", _linear),
    ("oneDNN", "int8", _int8),
)


def _made(
    name: str, precision: str, make: Callable[[Tensor, Tensor], Product], shape: tuple[int, int, int]
) -> Candidate | None:
    """A candidate, run once; None if this build of torch lacks it."""
    height, inner, width = shape
    generator = torch.Generator().manual_seed(0)
    try:
        run = make(torch.randn(height, inner, generator=generator), torch.randn(inner, width, generator=generator))
        run()
    except (RuntimeError, NotImplementedError, AttributeError):
        return None
    return Candidate(f"{name} {height}x{inner}x{width}", precision, 2 * height * inner * width, run)
