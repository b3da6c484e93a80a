"""One start of the command line, watched from outside: its processes, its words, its end (Linux)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path


class Program:
    """A command in a session of its own, so that everything that it starts can be found again.

    Args:
        command: program and arguments.
        words: file that takes what it says.
        environment: its environment variables.

    Attributes:
        began: when it was started, in seconds since 1970.
    """

    def __init__(self, command: Sequence[str], words: Path, environment: Mapping[str, str]) -> None:
        words.parent.mkdir(parents=True, exist_ok=True)
        self.words = words
        self.began = time.time()
        with open(words, "wb") as file:
            self._process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
        self.pid = self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it is still running."""
        return self._process.poll() is None

    def wait(self, seconds: float | None = None) -> int | None:
        """Its exit code (negative: the signal that ended it), or None if it is still running after so many seconds."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def computed(self) -> float:
        """CPU seconds that the main process has used so far; infinite once it is gone."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return float("inf")
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """SIGKILL for the main process alone."""
        self.send(self.pid, signal.SIGKILL)

    def end(self) -> None:
        """SIGKILL for all its processes."""
        for pid in self.session():
            self.send(pid, signal.SIGKILL)

    def send(self, pid: int, number: signal.Signals) -> None:
        """A signal for one process of its session; nothing if that is gone."""
        with suppress(ProcessLookupError):
            if pid in self.session():
                os.kill(pid, number)

    def session(self) -> list[int]:
        """All living processes that belong to it, also those that have outlived the main process."""
        return [pid for pid in _pids() if _session_of(pid) == self.pid]

    def data_workers(self) -> list[int]:
        """Its data workers: forks of the main process."""
        own = _command_line(self.pid)
        return [pid for pid in self.session() if pid != self.pid and _command_line(pid) == own]

    def leftovers(self, patience: float = 30.0) -> list[int]:
        """Processes that are still there so many seconds after its end; data workers look for their parent every 5."""
        end = time.monotonic() + patience
        while (left := self.session()) and time.monotonic() < end:
            time.sleep(0.1)
        return left

    @contextmanager
    def held(self) -> Iterator[None]:
        """Stops time for all its processes, so that what lies on disk can be looked at."""
        for pid in self.session():
            self.send(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in self.session():
                self.send(pid, signal.SIGCONT)

    def said(self) -> str:
        """Everything that it has said so far."""
        return self.words.read_text(encoding="utf-8", errors="replace")

    def last_words(self, limit: int = 420) -> str:
        """Its final message in one line, without the places of this machine."""
        text = self.said()
        message = re.search(r"^eyespot: .*", text, re.DOTALL | re.MULTILINE)
        lines = (message[0] if message else "\n".join(text.splitlines()[-2:])).split()
        short = without_places(" ".join(lines))
        return short if len(short) <= limit else short[:limit] + " ..."


def without_places(text: str) -> str:
    """The text with every absolute path cut to its last two parts."""
    return re.sub(r"(?:/[^\s/:;,'\"()]+){3,}", lambda match: "/".join(match[0].split("/")[-2:]), text)


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def _session_of(pid: int) -> int | None:
    """Session of a living process; None for one that is gone or waits to be reaped."""
    try:
        # The name in parentheses may hold anything; after it come state, parent, group, session.
        state, _, _, session = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
    except (OSError, ValueError):
        return None
    return None if state in "ZX" else int(session)


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
