"""What a command may write over: what eyespot wrote itself and can recognise. All else is refused, before the work."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyespot.files import atomic_folder, atomic_write_text
from eyespot.locks import LOCK_FILE, Lock

MARK = "Written by eyespot"
"""Stands near the beginning or the end of every file that is written under a name of the user's choice."""
_LOOKED_AT = 4096
FOLDER_MARK = ".eyespot"


def check_output_file(path: str | Path) -> None:
    """Refuses to write a file where something stands that eyespot has not written.

    Raises:
        IsADirectoryError: `path` is a folder.
        FileExistsError: there is a file without our mark, or something that is no file.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; the output is a file: name one, in that folder if you like")
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_file() or not _is_marked(path):
        raise FileExistsError(
            f"{path} is there and was not written by eyespot (or by a version that left no mark): it is not "
            "overwritten; choose another output, or move it away"
        )


def _is_marked(file: Path) -> bool:
    with open(file, "rb") as content:
        head = content.read(_LOOKED_AT)
        content.seek(max(0, file.stat().st_size - _LOOKED_AT))
        return MARK.encode() in head + content.read()


@dataclass(frozen=True)
class FolderKind:
    """A kind of folder that eyespot writes.

    Attributes:
        name: what it is, with its article.
        recognised: whether a folder without a mark is one of this kind: by what only we write.
        entries: for a folder that is replaced as a whole: the names of all that we ever write into it.
    """

    name: str
    recognised: Callable[[Path], bool]
    entries: Collection[str] = ()

    def check(self, path: str | Path) -> None:
        """Refuses a folder to work in that holds other things than one of this kind.

        Raises:
            NotADirectoryError: `path` is a file.
            FileExistsError: a folder with something else in it; names some of that.
        """
        path = Path(path)
        if not path.is_dir():
            if path.exists() or path.is_symlink():
                raise NotADirectoryError(f"{path} is a file; {self.name} is a folder: choose another output")
            return
        found = sorted(entry.name for entry in path.iterdir() if entry.name != LOCK_FILE)
        mark = path / FOLDER_MARK
        ours = mark.read_text("utf-8") == self._text() if mark.is_file() else not found or self.recognised(path)
        if not ours:
            raise FileExistsError(
                f"{path} holds something else than {self.name} ({_some(found)}): nothing is written there; choose "
                "another output"
            )

    @contextmanager
    def work_in(self, path: str | Path | None) -> Iterator[None]:
        """Makes a folder and marks it as one of this kind; in the block no other process works in it.

        Args:
            path: the folder; with None nothing happens.

        Raises:
            NotADirectoryError, FileExistsError: see `check`.
            InUseError: another process works in it.
        """
        if path is None:
            yield
            return
        self.check(path)
        with Lock(Path(path) / LOCK_FILE, path):
            atomic_write_text(Path(path) / FOLDER_MARK, self._text())
            yield

    def check_replaceable(self, path: str | Path) -> None:
        """Refuses a folder that is not one of this kind, or holds one thing more than we have written.

        Raises:
            NotADirectoryError: `path` is a file.
            FileExistsError: it would be lost with the folder; names it.
        """
        self.check(path)
        path = Path(path)
        foreign = (
            sorted(entry.name for entry in path.iterdir() if entry.name not in self.entries) if path.is_dir() else []
        )
        if foreign:
            raise FileExistsError(
                f"{path} is replaced as a whole, and {_some(foreign)} in it would be lost: choose another output, or "
                "move that away"
            )

    @contextmanager
    def replace(self, path: str | Path) -> Iterator[Path]:
        """Yields a new folder that takes the place of `path` when the block ends without an error.

        Raises:
            NotADirectoryError, FileExistsError: see `check_replaceable`; asked before the block and after it.
            InUseError: another process writes the same folder.
        """
        self.check_replaceable(path)
        real = Path(os.path.realpath(path))
        with Lock(real.with_name(f".{real.name}{LOCK_FILE}"), path), atomic_folder(path) as temporary:
            yield temporary
            self.check_replaceable(path)

    def _text(self) -> str:
        return f"{MARK}: {self.name}\n"


def holds(*patterns: str) -> Callable[[Path], bool]:
    """Whether a folder has something by one of these names (glob), for `FolderKind.recognised`."""
    return lambda folder: any(True for pattern in patterns for _ in folder.glob(pattern))


def read_facts(file: Path) -> dict[str, Any]:
    """What a JSON file says, to recognise it by; nothing if it is none or does not hold an object."""
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _some(names: Collection[str]) -> str:
    shown = list(names)[:3]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")
