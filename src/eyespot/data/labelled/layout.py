"""How a data set lies on disk, and the errors that say so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from eyespot.data.sources.folders import is_picture


class LayoutError(FileNotFoundError):
    """A data set is not laid out as its reader expects; the message says what is missing and what was expected."""


def list_pictures(folder: Path) -> list[Path]:
    """The picture files directly in `folder`, sorted by name, as training sees them: no hidden ones."""
    return sorted(path for path in folder.iterdir() if is_picture(path.name))


@dataclass(frozen=True)
class Layout:
    """What a reader expects.

    Attributes:
        name: the data set's usual name.
        tree: the files, in words; FOLDER stands for the folder that the reader is given.
        where: where to get them; empty for layouts for one's own pictures.
    """

    name: str
    tree: str
    where: str = ""

    def missing(self, what: str) -> LayoutError:
        """The error that says what is missing, what was expected, and where to get it."""
        source = f". Get {self.name} from {self.where}" if self.where else ""
        return LayoutError(f"no {what}; expected {self.tree}{source}")

    def folder(self, path: Path) -> Path:
        """`path`, which must be a folder.

        Raises:
            LayoutError: it is not.
        """
        if not path.is_dir():
            raise self.missing(f"folder {path}")
        return path

    def file(self, path: Path) -> Path:
        """`path`, which must be a file.

        Raises:
            LayoutError: it is not.
        """
        if not path.is_file():
            raise self.missing(f"file {path}")
        return path

    def first(self, paths: Iterable[Path]) -> Path:
        """The first of several places that exists.

        Raises:
            LayoutError: none does.
        """
        places = list(paths)
        for path in places:
            if path.exists():
                return path
        raise self.missing(" or ".join(map(str, places)))

    def pictures(self, folder: Path) -> list[Path]:
        """The pictures directly in a folder, sorted by name.

        Raises:
            LayoutError: no such folder, or no pictures in it.
        """
        found = list_pictures(self.folder(folder))
        if not found:
            raise self.missing(f"pictures in {folder}")
        return found
