"""What the processes of a training tell one another beside the training: who wants to stop, and who has failed.

All of it runs on the host, over gloo and torch's key-value store, so it neither waits for the devices nor depends on
them still answering.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException

_FAILED, _SEEN = "failed", "seen"
_CONTEXTS = itertools.count()
_POLL_SECONDS = 0.5
_ANSWER_SECONDS = 5.0
GRACE_SECONDS = 30.0
"""How long a process may take to end by itself after another has failed."""


class PeerError(RuntimeError):
    """Another process of this training has failed, so this one ends too."""


class Processes:
    """The processes of a training. As a context, it makes all of them end when one fails.

    A process that leaves the context with an error leaves a note. The others find it when their next exchange with it
    fails, or, where an exchange would wait for ever, in a background thread that ends the process `GRACE_SECONDS`
    later.

    Attributes:
        rank: number of this process.
        count: how many there are.
    """

    def __init__(self) -> None:
        active = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if active else 0
        self.count = dist.get_world_size() if active else 1
        self.group = _host_group() if self.count > 1 else None
        self._vote: tuple[Any, torch.Tensor] | None = None

    def gather(self, value: Any) -> list[Any]:
        """What every process gave, in order of their numbers. All have to call it; small objects only."""
        if self.group is None:
            return [value]
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value, group=self.group)
        return found

    def barrier(self) -> None:
        """Waits until all are here."""
        if self.group is not None:
            dist.barrier(group=self.group)

    def any_wanted(self, wanted: bool) -> bool:
        """Whether any process wanted something: a vote that costs nothing, because it is counted one call later.

        All have to call it equally often; all get the same answer at the same call.

        Args:
            wanted: this process's wish, from now on.

        Returns:
            With one process, `wanted`. With several, whether any of them wanted it at the call before this one.
        """
        if self.group is None:
            return wanted
        decided = self._count_votes()
        ballot = torch.tensor([float(wanted)])
        self._vote = (dist.all_reduce(ballot, group=self.group, async_op=True), ballot)
        return decided

    def _count_votes(self) -> bool:
        if self._vote is None:
            return False
        (work, ballot), self._vote = self._vote, None
        work.wait()
        return bool(ballot.item())

    def __enter__(self) -> Processes:
        if self.group is not None:
            self._number = next(_CONTEXTS)
            self._store: Any = dist.distributed_c10d._get_default_store().clone()
            self._over = threading.Event()
            self._watcher = threading.Thread(target=self._watch, name="eyespot-peers", daemon=True)
            self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.group is None:
            return
        try:
            if error is None:
                self._count_votes()
            elif not isinstance(error, Stopped):
                self._over.set()  # this process is ending by itself
                self._end_together(error)
        finally:
            self._over.set()
            self._watcher.join(_ANSWER_SECONDS)

    def _end_together(self, error: BaseException) -> None:
        """Tells the others of an error of ours; raises one that says so if it only follows from theirs."""
        lost = _is_lost_contact(error)
        if lost:
            note = self._note(wait=_ANSWER_SECONDS)
            if note:
                raise PeerError(f"training ends here too: {note}") from error
        self._publish(
            f"process {self.rank} has lost contact with another"
            if lost
            else f"process {self.rank} failed: {type(error).__name__}: {error}"
        )
        if lost:
            raise PeerError(
                "another process of this training ended without a word; was it killed, or out of memory? The same "
                "command continues from the last checkpoint"
            ) from error

    def _publish(self, note: str) -> None:
        """Leaves a note and waits until the others have read it: the store may live in this process."""
        with suppress(RuntimeError):  # the store has gone with its process: nobody is left to tell
            self._store.compare_set(self._key(_FAILED), "", note)
            self._store.set(self._key(_SEEN, self.rank), "yes")
            others = [self._key(_SEEN, rank) for rank in range(self.count)]
            until = time.monotonic() + _ANSWER_SECONDS
            while time.monotonic() < until and not self._store.check(others):
                time.sleep(0.1)

    def _note(self, wait: float = 0.0) -> str | None:
        """What failed in another process, if anything is known within `wait` seconds."""
        until = time.monotonic() + wait
        with suppress(RuntimeError):
            while not self._store.check([self._key(_FAILED)]):
                if time.monotonic() >= until:
                    return None
                time.sleep(0.1)
            self._store.set(self._key(_SEEN, self.rank), "yes")
            return str(self._store.get(self._key(_FAILED)).decode())
        return None

    def _key(self, *words: object) -> str:
        return "/".join(map(str, ("eyespot", self._number, *words)))

    def _watch(self) -> None:
        """In the background: looks for a note, and ends a process that does not end by itself."""
        while not self._over.wait(_POLL_SECONDS):
            note = self._note()
            if note:
                if not self._over.wait(GRACE_SECONDS):
                    print(f"process {self.rank} is ended: {note}", file=sys.stderr, flush=True)
                    os._exit(1)
                return


class Stopped(KeyboardInterrupt):
    """All processes have agreed to stop, as the user wished; no failure of one of them."""


@cache
def _host_group() -> Any:
    """A gloo group of all processes, whatever the devices speak."""
    return dist.new_group(backend="gloo")


def _is_lost_contact(error: BaseException) -> bool:
    """Whether an error is what an exchange with a process that has gone looks like."""
    if isinstance(error, CheckpointException):
        return any(_is_lost_contact(failure[0]) for failure in error.failures.values())
    signs = ("gloo", "Connection closed by peer", "Connection reset by peer", "NCCL", "Broken pipe")
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
    )
