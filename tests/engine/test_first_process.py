"""What the first process does alone: the others wait for as long as it lives, and no longer."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from process_groups import run_group
from toy_training import PLAIN

from eyespot import waiting
from eyespot.engine import first_process
from eyespot.engine.first_process import first_awaited
from eyespot.engine.strategy import start_fabric
from eyespot.waiting import awaited


def work(rank: int, size: int, folder: Path, what: str) -> None:
    """The first process works for several times as long as it may be silent."""
    first_process.SECONDS_BETWEEN_SIGNS, first_process.SILENT_SECONDS = 0.05, 1.0
    first_process.SECONDS_TO_HEAR = 2.0
    if what == "silent" and rank == 0:
        first_process._give_signs = lambda *_: None
    start_fabric(replace(PLAIN, devices=size))
    with first_awaited():
        if rank == 0:
            if what == "fail":
                raise ValueError("no such picture")
            if what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(2.5)
            (folder / "made").write_text("yes")
    with first_awaited():
        assert (folder / "made").exists()


@pytest.mark.parametrize(
    ("what", "first", "second"),
    [
        ("long", "done", "done"),
        ("fail", "ValueError: no such picture", "PeerError: this process ends too: process 0 failed: ValueError: no"),
        ("kill", "", "PeerError: the first process of this training ended without a word"),
        ("silent", None, "PeerError: the first process has given no sign of life for 1 s"),
    ],
)
def test_the_others_wait_for_the_first_as_long_as_it_lives(
    what: str, first: str | None, second: str, tmp_path: Path
) -> None:
    ended = run_group(2, work, tmp_path, what)
    assert first is None or ended[0] == first
    assert ended[1].startswith(second)


def test_one_process_waits_for_nobody() -> None:
    with first_awaited():
        pass


def test_a_long_wait_says_what_for(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(waiting, "SECONDS_BETWEEN_SIGNS", 0.02)
    with ThreadPoolExecutor(1) as pool:
        assert awaited(pool.submit(lambda: time.sleep(0.2) or "read"), "pictures to be read") == "read"
        assert "still waiting for pictures to be read (0 min)" in capsys.readouterr().err

        def broken() -> None:
            raise TimeoutError("of the disk")

        with pytest.raises(TimeoutError, match="of the disk"):
            awaited(pool.submit(broken), "a disk")
