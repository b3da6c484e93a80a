"""Pictures below a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from eyespot.contents import file_contents
from eyespot.data.sources.decode import MAX_PIXELS, SUFFIXES, decode_picture
from eyespot.data.sources.fingerprint import fingerprint_of
from eyespot.data.sources.strings import StringTable
from eyespot.specs import nearest_names

SPLITS = frozenset(("train", "training", "val", "valid", "validation", "dev", "test", "testing"))
"""Names of folders, in lower case, that are no classes where all of them are such."""


class FolderSource:
    """All pictures below a folder, in the order of their paths.

    Known suffixes only; hidden files and folders are passed over, links to folders followed. If every picture lies in
    a folder of the first level and there are at least two of them, these are the classes (ImageFolder), unless they are
    called like splits (train, val, test).

    Args:
        path: the folder.
        enough_side: see `decode_picture`.
        max_pixels: see `decode_picture`.

    Raises:
        FileNotFoundError: no such folder.
        NotADirectoryError: it is a file.
        ValueError: no pictures in it.
    """

    def __init__(self, path: str | Path, enough_side: int | None = None, max_pixels: int = MAX_PIXELS) -> None:
        self.name = str(path)
        self.root = Path(path).expanduser()
        self.enough_side = enough_side
        self.max_pixels = max_pixels
        if not self.root.exists():
            raise FileNotFoundError(f"no folder {str(self.root)!r}{nearest_path(self.root)}")
        if not self.root.is_dir():
            raise NotADirectoryError(f"{str(self.root)!r} is a file; give the folder that holds the pictures")
        paths = sorted(picture_paths(self.root))
        if not paths:
            raise ValueError(_why_empty(self.root))
        self.classes = _class_folders(paths)
        self.why_no_classes = None if self.classes else _why_no_classes(self.root, paths)
        self._paths = StringTable(paths)
        self._labels = {name: label for label, name in enumerate(self.classes or ())}

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, index: int) -> Image.Image:
        """Picture `index` as 8-bit RGB; raises `PictureError` if it is broken."""
        return decode_picture(self.root / self._paths[index], None, self.enough_side, self.max_pixels)

    def picture_name(self, index: int) -> str:
        """The path of picture `index`."""
        return str(self.root / self._paths[index])

    def label(self, index: int) -> int | None:
        """The number of the class folder of picture `index`, None if there are no class folders."""
        return self._labels.get(self._paths[index].split("/", 1)[0])

    def fingerprint(self) -> str:
        """A hash of the paths below the folder and the files' sizes."""
        return fingerprint_of(f"{path}\t{os.stat(self.root / path).st_size}" for path in self._paths)

    def contents(self) -> np.ndarray:
        """See `HasContents.contents`: of the files."""
        return file_contents([self.picture_name(index) for index in range(len(self))])


def is_picture(name: str) -> bool:
    """Whether a file of this name counts as a picture: by its suffix; hidden files (also macOS's ._NAME) do not."""
    return os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")


def picture_paths(root: Path) -> Iterable[str]:
    """The pictures in a folder and below, relative to it, in no order; links to folders are followed."""
    seen: set[str] = set()
    for folder, below, files in os.walk(root, followlinks=True, onerror=_raise):
        real = os.path.realpath(folder)
        if real in seen:  # a link back up
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not name.startswith("."))
        prefix = Path(folder).relative_to(root)
        for file in files:
            if is_picture(file):
                yield (prefix / file).as_posix()


def _raise(error: OSError) -> None:
    raise error


def _class_folders(paths: list[str]) -> list[str] | None:
    if not all("/" in path for path in paths):
        return None
    folders = sorted({path.split("/", 1)[0] for path in paths})
    return folders if len(folders) > 1 and not _are_splits(folders) else None


def _are_splits(folders: Iterable[str]) -> bool:
    return {folder.lower() for folder in folders} <= SPLITS


def _why_no_classes(root: Path, paths: list[str]) -> str:
    """The end of a message where labels are missed."""
    folders = sorted({path.split("/", 1)[0] for path in paths if "/" in path})
    stray = next((path for path in paths if "/" not in path), None)
    if folders and stray is None and _are_splits(folders):
        return f"; {', '.join(folders)} in it are splits, no classes: give one of them, {root / folders[0]}"
    if len(folders) > 1:
        return f"; {stray} lies beside its {len(folders)} folders: move it away if those are the classes"
    return ""


def _why_empty(root: Path) -> str:
    if any(root.glob("*.tar")):
        return f"no pictures in {str(root)!r}, but tar files; to read them as WebDataset shards give '{root}/*.tar'"
    if any((root / file).is_file() for file in ("dataset_dict.json", "dataset_info.json")):
        return f"no pictures in {str(root)!r}, but a Hugging Face data set; to read it give 'datasets/{root}'"
    return f"no pictures in {str(root)!r} or below; known are {', '.join(sorted(SUFFIXES))}"


def nearest_path(path: Path) -> str:
    """The end of an error message: which existing path `path` may have meant."""
    known = path
    while not known.exists() and known != known.parent:
        missing, known = known.name, known.parent
    if known == path or not known.is_dir():
        return ""
    close = nearest_names(missing, os.listdir(known))
    return (
        f"; did you mean {str(known / close[0])!r}?"
        if close
        else f" ({str(known)!r} is there, but no {missing!r} in it)"
    )
