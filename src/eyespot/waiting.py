"""Waiting for what is done in the background: for as long as it takes, but never without a word."""

from __future__ import annotations

import sys
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from typing import TypeVar

SECONDS_BETWEEN_SIGNS = 300.0
"""After so long a wait, and again after as long, a line says what is waited for."""

T = TypeVar("T")


def awaited(future: Future[T], what: str) -> T:
    """The result of a future; while it does not come, a line on stderr every five minutes says what is waited for.

    Args:
        future: of something that may take long, or for ever: a disk of the network that does not answer, say.
        what: it is, for that line.

    Raises:
        Exception: whatever the future raises.
    """
    start = time.monotonic()
    while True:
        try:
            return future.result(SECONDS_BETWEEN_SIGNS)
        except NotYet:
            if future.done():  # it came just now, or raised such an error itself
                return future.result()
        waited = (time.monotonic() - start) / 60
        print(f"still waiting for {what} ({waited:.0f} min)", file=sys.stderr, flush=True)
