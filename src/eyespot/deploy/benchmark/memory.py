"""The largest resident memory of this process since a moment of one's choice, where Linux tells it."""

from __future__ import annotations

from pathlib import Path

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): resets the peak resident set to the present one


class PeakMemory:
    """Peak resident memory above what the process held when this object was made.

    Code of libraries counts from the moment that it is touched; so does a weight file that is mapped, not read.
    """

    def __init__(self) -> None:
        self._baseline: int | None = None
        try:
            CLEAR_REFS.write_text(_RESET_PEAK)
            self._baseline = _kibibytes("VmRSS")
        except OSError:  # not Linux, or a kernel or sandbox without it
            pass

    def mebibytes(self) -> float | None:
        """The peak so far, in MiB; None where the system cannot tell."""
        peak = None if self._baseline is None else _kibibytes("VmHWM")
        return None if peak is None or self._baseline is None else max(0, peak - self._baseline) / 1024


def _kibibytes(key: str) -> int | None:
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    return None
