"""What the first process does alone, and how the others wait for it: for as long as it gives signs of life."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch.distributed as dist

from eyespot.engine.processes import PeerError

SECONDS_BETWEEN_SIGNS = 5.0

SILENT_SECONDS = 900.0
"""So long the first process may give no sign of life."""

SECONDS_TO_HEAR = 30.0
"""So long the first process stays for the others to hear that it is done: the store may live in it."""

_POLL_SECONDS = 0.2
_DONE = "done"
_BLOCKS = itertools.count()


@contextmanager
def first_awaited() -> Iterator[None]:
    """No process leaves the block before the first one does, however long that takes.

    A barrier of NCCL or gloo gives up after minutes; measuring a student on a test set takes longer. So the first
    process leaves signs of life in torch's key-value store, and the others look for them. All processes have to come
    here equally often.

    Raises:
        PeerError: in the others: the first has failed, has ended without a word, or gives no sign of life any more.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        yield
        return
    store: Any = dist.distributed_c10d._get_default_store().clone()
    place = f"eyespot/first/{next(_BLOCKS)}"
    if dist.get_rank() == 0:
        with _signs_of_life(store, place):
            yield
    else:
        try:
            yield
            _await_first(store, place)
        finally:
            with suppress(RuntimeError):
                store.set(f"{place}/heard/{dist.get_rank()}", "yes")


@contextmanager
def _signs_of_life(store: Any, place: str) -> Iterator[None]:
    over, outcome = threading.Event(), _DONE
    signs = threading.Thread(target=_give_signs, args=(store, place, over), name="eyespot-first", daemon=True)
    signs.start()
    try:
        yield
    except BaseException as error:
        outcome = f"process 0 failed: {type(error).__name__}: {error}"
        raise
    finally:
        over.set()
        signs.join(SECONDS_TO_HEAR)
        with suppress(RuntimeError):  # the store has gone with its process: nobody is left to tell
            store.set(f"{place}/outcome", outcome)
            others = [f"{place}/heard/{rank}" for rank in range(1, dist.get_world_size())]
            # After an error the others may be gone as well.
            until = time.monotonic() + (SECONDS_TO_HEAR if outcome == _DONE else SECONDS_BETWEEN_SIGNS)
            while time.monotonic() < until and not store.check(others):
                time.sleep(_POLL_SECONDS)


def _give_signs(store: Any, place: str, over: threading.Event) -> None:
    with suppress(RuntimeError):
        for number in itertools.count():
            store.set(f"{place}/sign", str(number))
            if over.wait(SECONDS_BETWEEN_SIGNS):
                return


def _await_first(store: Any, place: str) -> None:
    last, since = b"", time.monotonic()
    while True:
        try:
            if store.check([f"{place}/outcome"]):
                outcome = store.get(f"{place}/outcome").decode()
                break
            sign = store.get(f"{place}/sign") if store.check([f"{place}/sign"]) else b""
        except RuntimeError as error:
            raise PeerError(
                "the first process of this training ended without a word; was it killed, or out of memory? The same "
                "command continues"
            ) from error
        if sign != last:
            last, since = sign, time.monotonic()
        elif time.monotonic() - since > SILENT_SECONDS:
            raise PeerError(
                f"the first process has given no sign of life for {SILENT_SECONDS:g} s, so this one ends; the same "
                "command continues"
            )
        time.sleep(_POLL_SECONDS)
    if outcome != _DONE:
        raise PeerError(f"this process ends too: {outcome}")
