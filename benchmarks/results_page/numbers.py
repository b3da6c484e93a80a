"""Reads the result files; says numbers with their spread, and when two of them may be told apart."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"


class ClaimError(ValueError):
    """A sentence of the page says what the result files do not."""


@cache
def load(name: str) -> dict[str, Any]:
    """The result file of that name, without its ending."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of a measure over seeds; no deviation where there is one value only."""

    mean: float
    deviation: float | None = None

    @classmethod
    def of(cls, values: float | Sequence[float]) -> Spread:
        """Of one value, or of several seeds."""
        if not isinstance(values, Sequence):
            return cls(values)
        return cls(mean(values), stdev(values) if len(values) > 1 else None)

    def times(self, factor: float) -> Spread:
        """The same in another unit."""
        return Spread(self.mean * factor, None if self.deviation is None else self.deviation * factor)

    def text(self, digits: int = 1) -> str:
        """For a table or a sentence."""
        if self.deviation is None:
            return number(self.mean, digits)
        return f"{number(self.mean, digits)} ± {self.deviation:.{digits}f}"


@dataclass(frozen=True)
class Measure:
    """A column: where it is in the files, and how it is shown."""

    key: str
    name: str
    unit: str = ""
    digits: int = 1
    factor: float = 1.0
    higher_is_better: bool | None = True
    """None for what is neither good nor bad by itself."""

    @property
    def head(self) -> str:
        """The head of its column."""
        unit = f", {self.unit}" if self.unit else ""
        arrow = {True: " ↑", False: " ↓", None: ""}[self.higher_is_better]
        return f"{self.name}{unit}{arrow}"

    def of(self, values: float | Sequence[float]) -> Spread:
        """What was measured, in the unit that is shown."""
        return Spread.of(values).times(self.factor)


def percent(key: str, name: str) -> Measure:
    """A share, shown in per cent."""
    return Measure(key, name, "%", 1, 100.0)


def number(value: float, digits: int = 1) -> str:
    """With a real minus sign, and without the minus of a rounded zero."""
    shown = f"{value:.{digits}f}"
    return shown.lstrip("-") if float(shown) == 0 else shown.replace("-", "−")


def order(one: Spread, other: Spread, higher_is_better: bool | None = True) -> int:
    """1 if the first is better beyond the spread, -1 if it is worse, 0 if the ranges mean ± deviation touch: level."""
    apart = one.mean - other.mean
    if abs(apart) <= (one.deviation or 0.0) + (other.deviation or 0.0):
        return 0
    return 1 if (apart > 0) == higher_is_better else -1


def compared(one: Mapping[str, Spread], other: Mapping[str, Spread], measures: Sequence[Measure]) -> str:
    """In words: where the first is better, level, worse."""
    found: dict[int, list[str]] = {1: [], 0: [], -1: []}
    for measure in measures:
        found[order(one[measure.key], other[measure.key], measure.higher_is_better)].append(measure.name)
    words = {1: "better in", 0: "level in", -1: "worse in"}
    if [len(names) for names in found.values()].count(0) == 2:
        sign = next(sign for sign, names in found.items() if names)
        return {1: "better in all", 0: "level in all", -1: "worse in all"}[sign]
    return ", ".join(f"{words[sign]} {listed(names)}" for sign, names in found.items() if names)


def listed(words: Iterable[str]) -> str:
    """a, b and c."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def holds(condition: bool, sentence: str) -> str:
    """The sentence.

    Raises:
        ClaimError: the condition that makes it true does not hold in the result files any more.
    """
    if not condition:
        raise ClaimError(f"the result files do not bear this sentence any more; rewrite it: {sentence!r}")
    return sentence


def made_on(*names: str) -> str:
    """Machine and date of result files, in words; machines that several have are named once."""
    days: dict[str, list[datetime]] = {}
    for name in names:
        machine = load(name)["machine"]
        cpu = machine["cpu"].replace("(R)", "").removesuffix(" Processor")
        where = f"{cpu}, {machine['cores']} cores, torch {machine['torch'].partition('+')[0]}"
        days.setdefault(where, []).append(datetime.fromisoformat(machine["date"]))
    return "; ".join(f"{where}, {listed(_dates(dates))}" for where, dates in days.items())


def _dates(dates: Iterable[datetime]) -> list[str]:
    days = sorted({day.date() for day in dates})
    return [f"{day.day} {day:%B %Y}" for day in days]
