"""One writer per folder: who works in it holds a lock, and whoever comes second is told who that is."""

from __future__ import annotations

import json
import os
import platform
import sys
import warnings
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

try:
    import fcntl
except ImportError:  # Windows: there is no lock
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".eyespot.lock"

_held: dict[tuple[int, Path], tuple[TextIO | None, int]] = {}
"""(process, real path of a lock) -> its open file, how often it was taken. A forked child holds nothing."""


class InUseError(RuntimeError):
    """Another process works in the folder."""


class Lock:
    """A lock on a folder, that of one process: it may take it several times, and gives it up as often.

    It is a POSIX record lock: gone with its process, however that ends, not inherited by data workers (a `flock` would
    be, and an orphan would hold it), and known to all machines of a network disk whose server keeps such locks (NFS
    does). Not on Windows, where nothing is locked.

    Args:
        file: of the lock; made when it is taken, removed when it is given up.
        about: what is locked, for the message.
    """

    def __init__(self, file: str | Path, about: str | Path) -> None:
        self.file, self.about = Path(os.path.realpath(file)), about

    def acquire(self) -> None:
        """Takes the lock; one that a killed process has left behind is free.

        Raises:
            InUseError: another process has it; says which, where and since when.
        """
        if fcntl is None:
            return
        key = (os.getpid(), self.file)
        file, times = _held[key] if key in _held else (self._open(), 0)
        _held[key] = (file, times + 1)

    def release(self) -> None:
        """Gives the lock up once; nothing happens if it is not held."""
        key = (os.getpid(), self.file)
        file, times = _held.pop(key, (None, 0))
        if times > 1:
            _held[key] = (file, times - 1)
        elif file is not None:
            with suppress(OSError):  # the folder may be gone
                self.file.unlink()
            file.close()

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _open(self) -> TextIO | None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = open(self.file, "a+", encoding="utf-8")  # noqa: SIM115 (closed when the lock is given up)
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = self._holder()
                file.close()
                if isinstance(error, BlockingIOError | PermissionError):
                    raise InUseError(f"{self.about} is in use{holder}: wait for it, or choose another folder") from None
                warnings.warn(
                    f"the disk of {self.about} keeps no locks ({error}): see to it that one command works there at a "
                    "time",
                    stacklevel=3,
                )
                return None
            if self._is_there(file):
                break
            file.close()  # given up, and removed, between opening and locking
        file.truncate(0)
        facts = {
            "process": os.getpid(),
            "machine": platform.node(),
            "start": datetime.now(UTC).isoformat(" ", "seconds"),
            "command": " ".join(sys.argv)[:200],
        }
        file.write(json.dumps(facts))
        file.flush()
        return file

    def _is_there(self, file: TextIO) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self.file))
        except FileNotFoundError:
            return False

    def _holder(self) -> str:
        try:
            facts = json.loads(self.file.read_text(encoding="utf-8"))
            return " by process {process} on {machine}, since {start} ({command})".format(**facts)
        except (OSError, ValueError, KeyError):
            return " by another process"
