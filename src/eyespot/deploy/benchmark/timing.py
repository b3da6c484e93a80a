"""What a series of interleaved rounds says: latency, its spread, and ratios that a noisy machine cannot bend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np


@dataclass(frozen=True)
class Turn:
    """What one contestant did in one round.

    Attributes:
        seconds: of each timed run.
        joules: of all of them together, None where it cannot be known.
        rested: seconds since its previous turn.
        restless: CPU seconds that the process used meanwhile, when it should have slept.
    """

    seconds: list[float]
    joules: float | None = None
    rested: float = 0.0
    restless: float = 0.0


@dataclass(frozen=True)
class Spread:
    """Median and quartiles over rounds."""

    median: float
    low: float
    high: float


@dataclass
class Series:
    """The turns of one contestant, one for each round."""

    turns: list[Turn] = field(default_factory=list)

    @property
    def seconds(self) -> list[float]:
        """All timed runs."""
        return [second for turn in self.turns for second in turn.seconds]

    @property
    def latency(self) -> float:
        """Median seconds of a run, over all runs."""
        return median(self.seconds)

    @property
    def p95(self) -> float:
        """The seconds that 95 % of all runs keep."""
        return float(np.percentile(self.seconds, 95))

    @property
    def by_round(self) -> list[float]:
        """Median seconds of a run in each round."""
        return [median(turn.seconds) for turn in self.turns]

    @property
    def joules(self) -> float | None:
        """Mean energy of a run; None if it is not known of every turn."""
        known = [turn.joules for turn in self.turns if turn.joules is not None]
        return sum(known) / len(self.seconds) if known and len(known) == len(self.turns) else None

    @property
    def idle(self) -> float:
        """Share of a core that it used while others had their turn."""
        rested = sum(turn.rested for turn in self.turns)
        return sum(turn.restless for turn in self.turns) / rested if rested else 0.0


def paired(first: Sequence[float | None], second: Sequence[float | None]) -> Spread | None:
    """The ratio first / second: taken within each round, then median and quartiles over rounds.

    Both of a pair were measured within a second or so of each other, so that what else the machine does, and its
    clock, weigh on both alike. Rounds in which one is missing do not count; None if there are no others.
    """
    ratios = [a / b for a, b in zip(first, second, strict=False) if a is not None and b is not None]
    return quartiles(ratios) if ratios else None


def quartiles(values: Sequence[float]) -> Spread:
    """Median and quartiles."""
    low, middle, high = (float(value) for value in np.percentile(values, [25, 50, 75]))
    return Spread(middle, low, high)


def take_turns(contestants: Sequence[Callable[[], None]], rounds: int) -> None:
    """Calls all contestants once per round, one at a time; every second round in reverse order.

    So nobody always follows the same neighbour, whose heat and cache he would inherit.
    """
    for number in range(rounds):
        for contestant in contestants if number % 2 == 0 else reversed(contestants):
            contestant()
