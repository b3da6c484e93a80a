"""Preparing what comes next in background threads while the present is worked on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from eyespot.waiting import awaited

T = TypeVar("T")


def prepared(make: Callable[[int], T], count: int, workers: int) -> Iterator[T]:
    """Yields `make(0)` to `make(count - 1)` in order, made ahead in threads.

    At most `workers` + 1 results are held or under way. With one worker the calls happen one after the other, in order.

    Args:
        make: what to do; runs in threads (decoding, resizing and torch release Python's lock).
        count: how many results.
        workers: how many threads.

    Raises:
        Exception: whatever `make` raised, where its result would have come.
    """
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[T]] = deque()
    try:
        for number in range(count + workers):
            if number < count:
                waiting.append(pool.submit(make, number))
            if number >= workers:
                yield awaited(waiting.popleft(), "pictures to be read")
    finally:
        pool.shutdown(cancel_futures=True)
