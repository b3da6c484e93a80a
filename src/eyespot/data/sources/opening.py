"""Sources by spec: one function over folders, WebDataset shards, Hugging Face data sets and the built-in toybox."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from eyespot.data.sources.base import PictureSource
from eyespot.data.sources.decode import MAX_PIXELS, SUFFIXES
from eyespot.data.sources.folders import FolderSource, nearest_path
from eyespot.data.sources.hub import PREFIX, HubSource
from eyespot.data.sources.shards import ShardSource
from eyespot.data.toybox.source import ToyboxSource
from eyespot.data.toybox.spec import SOURCE_COUNT, is_toybox, read_toybox_spec


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
    if is_toybox(spec):
        scenes = read_toybox_spec(spec, SOURCE_COUNT)
        return ToyboxSource(scenes.count, scenes.size)
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
        f"no pictures at {spec!r}{nearest_path(path)}. A source is a folder, a WebDataset shard (x.tar, x-*.tar, "
        "x-{000000..000009}.tar), a Hugging Face data set (datasets/NAME, datasets/FOLDER) or toybox[:COUNT[@SIZE]]"
    )


def _shard_paths(pattern: Path) -> list[Path]:
    if pattern.exists():
        return [pattern]
    paths: list[Path] = []
    for expanded in _expand_braces(str(pattern)):
        found = sorted(glob.glob(expanded)) if glob.has_magic(expanded) else [expanded]
        if not found:
            raise FileNotFoundError(f"no shard matches {expanded!r}{nearest_path(Path(expanded).parent)}")
        paths += [Path(path) for path in found]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(paths)} shards are not there, the first is "
            f"{missing[0]!r}{nearest_path(Path(missing[0]))}"
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
