"""Sources: where pictures come from. One interface over folders, WebDataset shards and the built-in toybox."""

from __future__ import annotations

import difflib
import glob
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, runtime_checkable

from PIL import Image

from eyespot.data.decode import MAX_PIXELS, SUFFIXES, decode_picture
from eyespot.data.fingerprint import fingerprint_of
from eyespot.data.hub_source import PREFIX, HubSource
from eyespot.data.shards import ShardSource
from eyespot.data.strings import StringTable


@runtime_checkable
class PictureSource(Protocol):
    """Pictures by number.

    Attributes:
        name: what reports call it, usually the spec it was opened from.
        classes: names of the classes in the order of the labels, None where there are no names.
    """

    name: str
    classes: list[str] | None

    def __len__(self) -> int:
        """How many pictures there are, readable or not."""
        ...

    def read(self, index: int) -> Image.Image:
        """Picture `index` as 8-bit RGB.

        Raises:
            PictureError: it is broken.
        """
        ...

    def picture_name(self, index: int) -> str:
        """What errors and reports call picture `index`."""
        ...

    def label(self, index: int) -> int | None:
        """The class of picture `index`, None if it has none."""
        ...

    def fingerprint(self) -> str:
        """A hash of names and sizes: equal as long as it is the same data, wherever it lies."""
        ...


class FolderSource:
    """All pictures below a folder, in the order of their paths.

    Known suffixes only; hidden files and folders are passed over, links to folders followed. If every picture lies in
    a folder of the first level and there are at least two of them, these are the classes (ImageFolder).

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
            raise FileNotFoundError(f"no folder {str(self.root)!r}{_nearest(self.root)}")
        if not self.root.is_dir():
            raise NotADirectoryError(f"{str(self.root)!r} is a file; give the folder that holds the pictures")
        paths = sorted(_picture_paths(self.root))
        if not paths:
            raise ValueError(_why_empty(self.root))
        self.classes = _class_folders(paths)
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


def open_source(spec: str, enough_side: int | None = None, max_pixels: int = MAX_PIXELS) -> PictureSource:
    """Opens the pictures that `spec` names.

    Args:
        spec: a folder; a WebDataset shard `x.tar` or several as `x-*.tar` or `x-{000000..000009}.tar`;
            `datasets/NAME` or `datasets/FOLDER`, a Hugging Face data set (see `HubSource`), unless a folder has this
            very name; or `toybox[:COUNT[@SIZE]]`, the built-in scenes.
        enough_side: see `decode_picture`; the toybox is rendered at its own size.
        max_pixels: see `decode_picture`.

    Raises:
        ImportError: a Hugging Face data set without the library `datasets`.
        FileNotFoundError: there is no such folder, shard or data set.
        ValueError: the spec means nothing here; the message says what would be right.
    """
    path = Path(spec).expanduser()
    if spec.split(":")[0].split("@")[0] == "toybox":
        return _open_toybox(spec)
    if re.match(r"[a-z][a-z0-9+]*://", spec):
        raise ValueError(f"{spec!r} is a remote address; download it and give the local folder or shards")
    if path.is_dir():
        return FolderSource(spec, enough_side, max_pixels)
    if spec.startswith(PREFIX):
        return HubSource(spec, enough_side, max_pixels)
    if path.name.lower().endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip")):
        raise ValueError(f"{spec!r} is compressed and cannot be read at random; unpack it to a .tar or a folder")
    if path.suffix == ".tar":
        return ShardSource(_shard_paths(path), spec, enough_side, max_pixels)
    if path.suffix.lower() in SUFFIXES:
        raise ValueError(f"{spec!r} names one picture; give the folder that holds the pictures: {str(path.parent)!r}")
    if path.exists():
        raise ValueError(f"{spec!r} is neither a folder nor a .tar shard")
    raise FileNotFoundError(
        f"no pictures at {spec!r}{_nearest(path)}. A source is a folder, a WebDataset shard (x.tar, x-*.tar, "
        "x-{000000..000009}.tar), a Hugging Face data set (datasets/NAME, datasets/FOLDER) or toybox[:COUNT[@SIZE]]"
    )


def _open_toybox(spec: str) -> PictureSource:
    match = re.fullmatch(r"toybox(?::([1-9]\d*)(?:@([1-9]\d*))?)?", spec)
    if match is None:
        raise ValueError(f"{spec!r} is not of the form toybox[:COUNT[@SIZE]], for example toybox:4096@96")
    from eyespot.data.toybox.source import ToyboxSource  # a renderer: loaded only where it is asked for

    count, size = match.groups()
    options = {key: int(value) for key, value in (("count", count), ("size", size)) if value}
    return ToyboxSource(**options)


def _picture_paths(root: Path) -> Iterable[str]:
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
            if os.path.splitext(file)[1].lower() in SUFFIXES and not file.startswith("."):
                yield (prefix / file).as_posix()


def _raise(error: OSError) -> None:
    raise error


def _class_folders(paths: list[str]) -> list[str] | None:
    if not all("/" in path for path in paths):
        return None
    folders = sorted({path.split("/", 1)[0] for path in paths})
    return folders if len(folders) > 1 else None


def _why_empty(root: Path) -> str:
    if any(root.glob("*.tar")):
        return f"no pictures in {str(root)!r}, but tar files; to read them as WebDataset shards give '{root}/*.tar'"
    if any((root / file).is_file() for file in ("dataset_dict.json", "dataset_info.json")):
        return f"no pictures in {str(root)!r}, but a Hugging Face data set; to read it give 'datasets/{root}'"
    return f"no pictures in {str(root)!r} or below; known are {', '.join(sorted(SUFFIXES))}"


def _shard_paths(pattern: Path) -> list[Path]:
    if pattern.exists():
        return [pattern]
    paths: list[Path] = []
    for expanded in _expand_braces(str(pattern)):
        found = sorted(glob.glob(expanded)) if glob.has_magic(expanded) else [expanded]
        if not found:
            raise FileNotFoundError(f"no shard matches {expanded!r}{_nearest(Path(expanded).parent)}")
        paths += [Path(path) for path in found]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(paths)} shards are not there, the first is "
            f"{missing[0]!r}{_nearest(Path(missing[0]))}"
        )
    return paths


def _expand_braces(pattern: str) -> list[str]:
    """`a{1..3}` and `a{x,y}` as shells expand them; zeros in front of a number keep its width."""
    match = re.search(r"\{([^{}]*)\}", pattern)
    if match is None:
        return [pattern]
    span = re.fullmatch(r"(\d+)\.\.(\d+)", match[1])
    if span is None and "," not in match[1]:
        raise ValueError(f"{match[0]!r} in {pattern!r} is neither a range like {{000..009}} nor a list like {{a,b}}")
    if span:
        width = len(span[1]) if span[1].startswith("0") else 0
        choices = [f"{number:0{width}d}" for number in range(int(span[1]), int(span[2]) + 1)]
    else:
        choices = match[1].split(",")
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [path for choice in choices for path in _expand_braces(before + choice + after)]


def _nearest(path: Path) -> str:
    """The end of an error message: which existing path `path` may have meant."""
    known = path
    while not known.exists() and known != known.parent:
        missing, known = known.name, known.parent
    if known == path or not known.is_dir():
        return ""
    close = difflib.get_close_matches(missing, os.listdir(known), n=1)
    return (
        f"; did you mean {str(known / close[0])!r}?"
        if close
        else f" ({str(known)!r} is there, but no {missing!r} in it)"
    )
