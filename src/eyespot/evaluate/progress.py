"""Showing people how far an evaluation is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

Progress = Callable[[str, int, int], None]
"""Called with what is going on, how many things are done, and how many there are in all."""


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """A `progress` for `evaluate`: one line on the terminal that says what is going on; silent where there is none."""
    begin = time.monotonic()
    with Console(stderr=True).status("evaluating") as status:
        yield lambda what, done, total: status.update(
            f"[{done}/{total}] {escape(what)}{time_left(time.monotonic() - begin, done, total)}"
        )


def time_left(elapsed: float, done: int, total: int) -> str:
    """How long it will still take if what is left goes on like what is done; empty while nothing is done.

    Args:
        elapsed: seconds so far.
        done: measurements that are there.
        total: measurements in all, models times tasks.
    """
    if not 0 < done < total:
        return ""
    seconds = elapsed * (total - done) / done
    return f", about {seconds / 60:.0f} min left" if seconds >= 90 else f", about {seconds:.0f} s left"
