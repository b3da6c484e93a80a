"""Stopwatch: lets somebody else's loop run a few steps at a time, and times them, without touching its code.

A hook on the student's first layer is called once per step. It waits there for an order, and after so many further
steps says how long they took: from one call to the next is one whole step, whatever the loop does between. So all
loops can stay loaded and take turns of a second or two on a machine whose speed changes from minute to minute.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, TextIO

from torch import nn

WARM_STEPS = 1
"""Steps after a pause that do not count: caches are cold."""


class Stopwatch:
    """Reads orders (a number of steps, or "stop") from standard input and answers with one JSON line each.

    Standard output is kept for the answers; what libraries print goes to standard error.
    """

    def __init__(self) -> None:
        self._answers: TextIO = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._left = 0  # steps until the next answer
        self._ordered = 0
        self._start = (0.0, 0.0)

    def watch(self, layer: nn.Module) -> None:
        """Times steps by the calls of this layer."""
        layer.register_forward_pre_hook(self._called)

    def _called(self, *_: Any) -> None:
        if self._left == 0:
            if self._ordered:
                cpu, wall = (now - then for now, then in zip(clocks(), self._start, strict=True))
                self._say({"steps": self._ordered, "cpu": cpu, "wall": wall})
            else:
                self._say({"ready": True})
            self._ordered = self._next_order()
            self._left = self._ordered + WARM_STEPS
        if self._left == self._ordered:
            self._start = clocks()
        self._left -= 1

    def _say(self, answer: dict[str, Any]) -> None:
        self._answers.write(json.dumps(answer) + "\n")
        self._answers.flush()

    def _next_order(self) -> int:
        order = sys.stdin.readline().strip()
        if order in ("", "stop"):
            os._exit(0)  # the loop around us has more steps to do and would only be interrupted
        return int(order)


def clocks() -> tuple[float, float]:
    """(CPU seconds of this process and its finished children, wall seconds)."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system, time.monotonic()
