"""One writer per folder: who works in it holds a lock, and whoever comes second is told who that is."""

from __future__ import annotations

import errno
import json
import os
import platform
import sys
import warnings
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

try:
    import fcntl
except ImportError:  # Windows: there is no lock
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".eyespot.lock"


@dataclass
class _Hold:
    """A lock that this process has: its open file (None on a disk without locks), its folder, how often it was taken.

    The folder is kept open, so that no other one can have its number on the disk.
    """

    file: TextIO | None
    folder: int
    times: int = 1


_held: dict[tuple[int, Path], _Hold] = {}
"""By (process, real path of a lock). A forked child holds nothing."""


class InUseError(RuntimeError):
    """Another process works in the folder."""


class FolderGoneError(OSError):
    """The folder that this process works in was removed, renamed or replaced by another one."""


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
        if key in _held:
            _held[key].times += 1
        else:
            file = self._open()
            _held[key] = _Hold(file, os.open(self.file.parent, os.O_RDONLY))

    def release(self) -> None:
        """Gives the lock up once; nothing happens if it is not held."""
        key = (os.getpid(), self.file)
        hold = _held.get(key)
        if hold is None:
            return
        hold.times -= 1
        if hold.times:
            return
        del _held[key]
        if hold.file is not None:
            with suppress(OSError):  # the folder may be gone, or another one's
                if self._is_there(hold.file):
                    self.file.unlink()
            with suppress(OSError):  # what a full disk did not take of the file's text
                hold.file.close()
        os.close(hold.folder)

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _open(self) -> TextIO | None:
        while True:
            file = self._opened()
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
        facts = {
            "process": os.getpid(),
            "machine": platform.node(),
            "start": datetime.now(UTC).isoformat(" ", "seconds"),
            "command": " ".join(sys.argv)[:200],
        }
        with suppress(OSError):  # on a full disk the lock holds, but cannot say whose it is
            file.truncate(0)
            file.write(json.dumps(facts))
            file.flush()
        return file

    def _opened(self) -> TextIO:
        """The file of the lock, made with its folder.

        Raises:
            OSError: it cannot be made; says of what the lock is.
        """
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            return open(self.file, "a+", encoding="utf-8")
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT):
                raise type(error)(
                    f"nothing can be written in {self.about}: {error.strerror}. Make it writable or choose another"
                ) from error
            raise

    def _is_there(self, file: TextIO) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self.file))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _holder(self) -> str:
        try:
            facts = json.loads(self.file.read_text(encoding="utf-8"))
            return " by process {process} on {machine}, since {start} ({command})".format(**facts)
        except (OSError, ValueError, KeyError):
            return " by another process"


def require_same_folder(path: Path) -> None:
    """Refuses to go on writing where this process holds a lock, if the folder is no longer the one that it locked.

    Args:
        path: real path of what is to be written.

    Raises:
        FolderGoneError: it was removed, renamed or replaced.
    """
    for (process, lock), hold in list(_held.items()):
        folder = lock.parent
        if process != os.getpid() or folder not in (path, *path.parents):
            continue
        try:
            same = os.path.samestat(os.stat(folder), os.fstat(hold.folder))
        except OSError:
            same = False
        if not same:
            raise FolderGoneError(
                f"{folder} was removed, renamed or replaced while this command worked in it: nothing more is written "
                "there"
            )
