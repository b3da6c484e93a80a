"""Real processes for tests that kill, interrupt or starve them, without paying for the imports each time."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

import torch

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["eyespot.recipes.eupe.recipe"])


def start_process(function: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """Calls a module's function in a new process of one thread; the process has its own memory and can be killed."""
    process = _CONTEXT.Process(target=_with_one_thread, args=(function, arguments))
    process.start()
    return process


def wait_until(reached: Callable[[], bool], process: BaseProcess) -> bool:
    """Waits for a condition while the process lives; False if it ended without."""
    while not reached():
        if not process.is_alive():
            return reached()
        time.sleep(0.002)
    return True


def _with_one_thread(function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    function(*arguments)
