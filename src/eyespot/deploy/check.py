"""The numeric check after every export: does the file say what the model says?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import Tensor

from eyespot.encoders.runtimes.exported import Session

LEAST_COSINE = 0.9999
LEAST_COSINE_INT8 = 0.9
"""Rounding to 8 bits moves features; what that costs is a question for tasks. Below this the file is broken."""
ANSWER = (0.5, 2.0)
"""The file must answer a change of the picture at least half, at most twice as strongly as the model (ours)."""


@dataclass(frozen=True)
class Agreement:
    """How near one output of a file is to that of the model, at one input shape.

    Attributes:
        output: its name.
        shape: of the input, [B, 3, H, W].
        cosine: between channel vectors, mean over positions, of the worst picture; of an output with one channel, which
            has no direction but a sign, between whole maps.
        max_difference: largest absolute difference.
        scale: largest absolute value that the model gives, to read the difference by.
        answer: norm of the change of the output from a black picture to noise, in the file, by that in the model. A
            file that gives nearly the same for any picture has a good cosine and a small answer.
    """

    output: str
    shape: tuple[int, ...]
    cosine: float
    max_difference: float
    scale: float
    answer: float

    def passed(self, least_cosine: float) -> bool:
        """Whether it is near enough."""
        return self.cosine >= least_cosine and ANSWER[0] <= self.answer <= ANSWER[1]


@dataclass(frozen=True)
class NumericCheck:
    """All agreements of an export; `passed` if each is near enough."""

    agreements: tuple[Agreement, ...]
    least_cosine: float = LEAST_COSINE

    @property
    def passed(self) -> bool:
        """Whether all outputs agree at all shapes."""
        return all(entry.passed(self.least_cosine) for entry in self.agreements)

    @property
    def cosine(self) -> float:
        """The lowest of all."""
        return min(entry.cosine for entry in self.agreements)

    @property
    def mean_cosine(self) -> float:
        """Mean over shapes of the lowest cosine of any output."""
        shapes = {entry.shape for entry in self.agreements}
        lowest = [min(entry.cosine for entry in self.agreements if entry.shape == shape) for shape in shapes]
        return sum(lowest) / len(lowest)

    def facts(self) -> dict[str, Any]:
        """JSON-able."""
        entries = [asdict(entry) for entry in self.agreements]
        return {"passed": self.passed, "least_cosine": self.least_cosine, "agreements": entries}

    def print(self, console: Console | None = None) -> None:
        """Prints a table for people."""
        table = Table(box=SIMPLE_HEAD)
        for heading in ("output", "input", "cosine", "max difference", "answer", ""):
            table.add_column(heading, justify="left" if heading in ("output", "input") else "right", no_wrap=True)
        for entry in self.agreements:
            difference = f"{entry.max_difference:.1e} of {entry.scale:.2g}"
            numbers = (f"{entry.cosine:.6f}", difference, f"{entry.answer:.3f}")
            verdict = "ok" if entry.passed(self.least_cosine) else "[bold red]failed[/]"
            table.add_row(entry.output, "x".join(map(str, entry.shape)), *numbers, verdict)
        (console or Console()).print(table)


def numeric_check(
    module: Callable[[Tensor], Sequence[Tensor]],
    session: Session,
    names: Sequence[str],
    pictures: Sequence[Tensor],
    least_cosine: float = LEAST_COSINE,
) -> NumericCheck:
    """Runs model and file on the same pictures, and on two that must differ.

    Args:
        module: gives the outputs of the original in the order of `names`.
        session: the file.
        names: outputs to compare.
        pictures: batches [b, 3, H, W] in [0, 1], one for each input shape.
        least_cosine: what passes.
    """
    found = [
        agreement
        for images in pictures
        for agreement in _agreements(module, session, tuple(names), images, _two_extremes(images))
    ]
    return NumericCheck(tuple(found), least_cosine)


@torch.no_grad()
def _agreements(module: Any, session: Session, names: tuple[str, ...], images: Tensor, extremes: Tensor) -> Any:
    expected, found = module(images), session.run(images, names)
    changes = [[run(extreme) for extreme in extremes] for run in (module, lambda batch: session.run(batch, names))]
    for place, name in enumerate(names):
        ours, theirs = ((after[place] - before[place]).norm() for before, after in changes)
        cosines = F.cosine_similarity(_vectors(expected[place]), _vectors(found[place]), dim=1)
        yield Agreement(
            output=name,
            shape=tuple(images.shape),
            cosine=float(cosines.flatten(1).mean(1).min() if cosines.ndim > 1 else cosines.min()),
            max_difference=float((expected[place] - found[place]).abs().max()),
            scale=float(expected[place].abs().max()),
            answer=float(theirs / ours) if ours > 0 else float(theirs == ours),
        )


def _vectors(output: Tensor) -> Tensor:
    """float64 [B, C, ...] whose vectors along C are compared."""
    has_directions = output.ndim < 3 or output.shape[1] > 1
    return output.double() if has_directions else output.double().flatten(1)


def _two_extremes(images: Tensor) -> Tensor:
    """[2, b, 3, H, W]: black, and noise."""
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    return torch.stack([torch.zeros_like(images), noise])
