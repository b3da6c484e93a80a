"""Writing files so that a kill, a full disk or Ctrl-C never leaves half of one under its final name."""

from __future__ import annotations

import codecs
import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

from eyespot.locks import FolderGoneError, require_same_folder

FULL_BELOW = 1 << 16
"""Bytes free at which a library that does not say what went wrong has met a full disk."""

MAKE_ROOM = "Make room and run the same command again"
AS_OUTPUT = "The same command goes on in the folder that it is given as output"


class CannotWriteError(OSError):
    """Something could not be written; says what and where, and what to do."""


@contextmanager
def write_errors_named(path: str | Path, then: str = "") -> Iterator[None]:
    """Says, of what goes wrong in the block because `path` cannot be written, which file it is and what to do.

    A full disk is recognised in the errors of safetensors and torch as well, which are none of the system's.

    Args:
        path: of the file.
        then: a sentence on what follows.

    Raises:
        CannotWriteError: the disk is full, read-only or broken, the folder is gone, or writing is not allowed.
    """
    try:
        yield
    except CannotWriteError:
        raise
    except Exception as error:
        reason = why_not_written(Path(path), error)
        if reason is None:
            raise
        told = CannotWriteError(". ".join(filter(None, (f"{path} cannot be written: {reason[0]}", reason[1], then))))
        told.errno = getattr(error, "errno", None)
        raise told from error


def why_not_written(path: Path, error: BaseException) -> tuple[str, str] | None:
    """(what is wrong with the disk or the folder of a file, what to do); None for errors that are none of theirs."""
    if isinstance(error, FolderGoneError):
        return str(error), AS_OUTPUT
    folder, number = path.parent, getattr(error, "errno", None)
    free = free_bytes(folder)
    full = number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
    if full or (isinstance(error, RuntimeError) and free is not None and free < FULL_BELOW):
        room = f"{(free or 0) / 2**20:.1f} MiB free in {folder}"
        also = "" if free is None or free < FULL_BELOW else ", too little, or none for temporary files (TMPDIR)"
        return f"No space left on device ({room}{also})", MAKE_ROOM
    if not isinstance(error, OSError):
        return None
    if not folder.is_dir():
        return f"{folder} is gone or no folder any more", "Was it removed or renamed?"
    concerns = error.filename is None or Path(os.fsdecode(error.filename)).parent == folder
    if number in (errno.EACCES, errno.EPERM, errno.EROFS) and concerns:
        return f"{error.strerror} in {folder}", "Choose another folder, or make this one writable"
    if number in (errno.EIO, errno.EFBIG, errno.ESTALE) and concerns:
        return f"{error.strerror} in {folder}", MAKE_ROOM
    return None


def free_bytes(folder: str | Path) -> int | None:
    """What is free on the disk of a folder; None if there is no such folder."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` and renames it to `path` when the block ends without an error.

    The block creates a file there. On an error the temporary is removed and whatever stood at `path` before is still
    there. Behind a symbolic link the file that it names is replaced, not the link.

    Raises:
        CannotWriteError: see `write_errors_named`.
        IsADirectoryError: a folder stands at `path`.
    """
    with _beside(path) as (place, temporary):
        if place.is_dir():
            raise IsADirectoryError(f"{path} is a folder; name a file")
        yield temporary
        os.replace(temporary, place)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yields a new, empty folder beside `path` and renames it to `path` when the block ends without an error.

    A folder at `path` is replaced as a whole, with all that is in it: the caller knows that it may be. It is moved
    aside first, so that a kill leaves one of the two.

    Raises:
        CannotWriteError: see `write_errors_named`.
    """
    with _beside(path) as (place, temporary):
        temporary.mkdir()
        yield temporary
        old = temporary.with_suffix(".old.tmp")
        if place.is_dir():
            os.rename(place, old)
        os.rename(temporary, place)
        remove(old)


@contextmanager
def _beside(path: str | Path) -> Iterator[tuple[Path, Path]]:
    """The real path, and a temporary one in the same folder that is removed at the end."""
    place = Path(os.path.realpath(path))
    require_same_folder(place)
    with write_errors_named(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
        remove(temporary)
        try:
            yield place, temporary
        finally:
            remove(temporary)


def atomic_write_text(path: str | Path, text: str) -> None:
    """Writes `text` (UTF-8) to `path` as one indivisible step."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_text(path: str | Path) -> str:
    """A text that others wrote: UTF-8 with or without a byte order mark, UTF-16 with one; lines end with a newline.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is in another encoding; names the file.
    """
    content = Path(path).read_bytes()
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if utf16 else "utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def read_json(path: str | Path) -> Any:
    """What a JSON file holds; its encoding as of `read_text`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no JSON; names the file.
    """
    with understood(path):
        return json.loads(read_text(path))


def read_yaml(path: str | Path) -> Any:
    """What a YAML file holds; its encoding as of `read_text`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no YAML; names the file.
    """
    import yaml

    text = read_text(path)
    try:
        with understood(path):
            return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UnreadableFileError(f"{path} is not YAML: {error}".partition("\n")[0]) from error


def read_array(path: str | Path) -> np.ndarray:
    """The array of a .npy file, or the only one of a .npz file; without pickled objects.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it holds none, or several; names the file.
    """
    import numpy as np

    try:
        found = np.load(path, allow_pickle=False)
        if not isinstance(found, np.lib.npyio.NpzFile):
            return found
        with found:
            if len(found.files) == 1:
                return found[found.files[0]]
            held = f"{len(found.files)} arrays"
    except MemoryError:
        raise
    except Exception as error:  # a damaged header is parsed as Python, a damaged .npz unpacked: nearly anything comes
        if isinstance(error, OSError) and error.filename is not None:
            raise  # the disk's word, which names the file
        raise UnreadableFileError(f"{path} cannot be read as an array ({reason_of(error)})") from error
    raise UnreadableFileError(f"{path} holds {held}; save the one that counts as .npy")


@contextmanager
def understood(path: str | Path, way_out: str = "") -> Iterator[None]:
    """What the content of a file makes its reader raise becomes a ValueError that names the file.

    For code that takes entries out of what was read, as if all were there and of the right kind.

    Args:
        path: the file.
        way_out: what to do about it, e.g. "delete it to measure again".

    Raises:
        ValueError: see above. What the disk refuses (OSError) goes through as it is.
    """
    try:
        yield
    except UnreadableFileError:
        raise
    except _OF_DAMAGE as error:
        ending = f"; {way_out}" if way_out else ""
        raise UnreadableFileError(
            f"{path} cannot be read, it is damaged or of another kind ({reason_of(error)}){ending}"
        ) from error


def reason_of(error: BaseException) -> str:
    """What an error of a library says, in one line that is not too long: some show all that they have read."""
    text = f"{type(error).__name__}: {error}".partition("\n")[0]
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]} ..."


class UnreadableFileError(ValueError):
    """A file that does not hold what it should; the message names it."""


_OF_DAMAGE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, AssertionError)
_LONGEST_REASON = 300
"""Characters."""


def remove(path: Path) -> None:
    """Deletes a file or a folder, if there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
