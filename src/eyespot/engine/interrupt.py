"""Ctrl-C and SIGTERM end a training after the step in progress, with a checkpoint. A second one ends it at once."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any


class Interrupt:
    """A context in which the first SIGINT or SIGTERM only sets `requested`.

    Args:
        echo_seconds: for how long after the first a further signal is taken for its echo. Among several processes the
            same wish arrives several times: from the terminal, which tells the whole group, and from the launcher.
    """

    def __init__(self, echo_seconds: float = 0.0) -> None:
        self.requested = False
        self.echo_seconds = echo_seconds
        self._first = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:
            self.requested, self._first = True, time.monotonic()
        elif time.monotonic() - self._first >= self.echo_seconds:
            raise KeyboardInterrupt
