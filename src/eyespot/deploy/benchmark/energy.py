"""Energy that the processor packages have used, from the counters of RAPL (running average power limit)."""

from __future__ import annotations

from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


class Rapl:
    """Energy counters of the processor packages under `/sys/class/powercap`; Intel's, and AMD's since Zen.

    Only packages are added up: their parts (cores, memory controller) are contained in them. The counters cover the
    whole package, so whatever else the machine does at the time is in them too.

    Args:
        folder: where the kernel shows them.
    """

    def __init__(self, folder: str | Path = POWERCAP) -> None:
        self._counters = [place / "energy_uj" for place in _packages(Path(folder))]
        self._ranges = [_number(counter.with_name("max_energy_range_uj")) for counter in self._counters]

    def read(self) -> list[int] | None:
        """Microjoules of each package, to be given to `joules`; None if there is no counter or it may not be read."""
        values = [_number(counter) for counter in self._counters]
        known = [value for value in values if value is not None]
        return known if known and len(known) == len(values) else None

    def joules(self, before: list[int] | None, after: list[int] | None) -> float | None:
        """Energy between two readings less than one turn of a counter apart (minutes at the least)."""
        if before is None or after is None:
            return None
        total = 0
        for start, end, whole in zip(before, after, self._ranges, strict=True):
            if end < start and whole is None:
                return None
            total += end - start if end >= start else end - start + (whole or 0)
        return total / 1e6


def _packages(folder: Path) -> list[Path]:
    places = sorted(folder.glob("intel-rapl:*"))
    return [place for place in places if _text(place / "name").startswith("package")]


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # no such file, or readable for root only, as on most systems
        return ""
