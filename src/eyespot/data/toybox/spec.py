"""The toybox by name, `toybox[:COUNT[@SIZE]]`, and which of its scenes are shown to whom.

A scene is named by one number. Who trains and who measures must not see the same ones, so all ranges are said here:

| from | who is shown them | each seed has its own |
|---|---|---|
| 0 | trainings: the pictures of `ToyboxSource`, and the training maps for several tasks | 2^32, of pictures alone |
| 1,000,000,000 | the training of probes (`eyespot.evaluate`) | 1,000,000 |
| 1,500,000,000 | the measuring of probes | 1,000,000 |
| 1,700,000,000 | the measuring of several tasks | - |
| 3,000,000,000 | the training of the quickstart's experts | - |

The ranges overlap only from sizes on that nobody renders (a training of a billion pictures), and where both measure
(probes of seed 200).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

FIRST_TRAINING = 0
FIRST_PROBE_TRAINING = 1_000_000_000
FIRST_PROBE_VALIDATION = 1_500_000_000
FIRST_MULTITASK_VALIDATION = 1_700_000_000
FIRST_EXPERT = 3_000_000_000

SCENES_PER_SOURCE_SEED = 2**32
SCENES_PER_PROBE_SEED = 1_000_000
PROBE_SEEDS = 500
"""How many seeds fit between the training and the measuring of probes."""

SMALLEST = 8
"""Pixels a side: in smaller pictures nothing could be recognised."""
SIZE = 96
SOURCE_COUNT = 4096
LABELLED_COUNT = 1000

_FORM = re.compile(r"toybox(?::([1-9]\d*)(?:@([1-9]\d*))?)?")


@dataclass(frozen=True)
class ToyboxSpec:
    """What `toybox[:COUNT[@SIZE]]` asks for.

    Attributes:
        count: how many scenes train; half as many others validate.
        size: pixels a side.
    """

    count: int
    size: int = SIZE

    @property
    def validation(self) -> int:
        """How many scenes validate, at least one."""
        return max(1, self.count // 2)


def is_toybox(spec: str) -> bool:
    """Whether a string names the toybox, rightly written or not; a folder of this name is ./toybox."""
    return re.split("[:@]", spec, maxsplit=1)[0] == "toybox"


def read_toybox_spec(spec: str, count: int = LABELLED_COUNT) -> ToyboxSpec:
    """Reads "toybox", "toybox:COUNT" or "toybox:COUNT@SIZE".

    Args:
        spec: as somebody wrote it.
        count: how many scenes where it does not say.

    Raises:
        ValueError: another form, or pictures that are too small.
    """
    match = _FORM.fullmatch(spec)
    if match is None:
        raise ValueError(f"{spec!r} is not of the form toybox[:COUNT[@SIZE]], for example toybox:{count}@{SIZE}")
    found = ToyboxSpec(int(match[1] or count), int(match[2] or SIZE))
    refuse_small_scenes(found.size, f"{spec!r}")
    return found


def refuse_small_scenes(size: int, what: str) -> None:
    """Refuses pictures that are too small.

    Args:
        size: pixels a side.
        what: what the error begins with.

    Raises:
        ValueError: fewer than `SMALLEST`.
    """
    if size < SMALLEST:
        raise ValueError(f"{what}: a toybox picture has at least {SMALLEST} pixels a side")


def probe_scenes(first: int, count: int, seed: int) -> range:
    """The numbers of `count` scenes of a seed, for the training or the measuring of probes.

    Args:
        first: `FIRST_PROBE_TRAINING` or `FIRST_PROBE_VALIDATION`.
        count: at most `SCENES_PER_PROBE_SEED`.
        seed: below `PROBE_SEEDS`.
    """
    start = first + seed * SCENES_PER_PROBE_SEED
    return range(start, start + count)
