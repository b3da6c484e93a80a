"""WebDataset shards (tar files of samples) with random access, so that they shuffle and resume like a folder."""

from __future__ import annotations

import io
import posixpath
import tarfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from eyespot.contents import Place, file_contents
from eyespot.data.sources.decode import MAX_PIXELS, SUFFIXES, PictureError, decode_picture
from eyespot.data.sources.fingerprint import combined, fingerprint_of
from eyespot.data.sources.strings import StringTable
from eyespot.files import atomic_path

if TYPE_CHECKING:
    from eyespot.data.sources.base import PictureSource

TEXT_SUFFIXES = (".txt", ".text", ".caption")
LABEL_SUFFIX = ".cls"
MOST_LINKS = 40
"""So many links in a row are followed, as Linux does."""


class _Part(NamedTuple):
    """One member of a shard: where its bytes lie."""

    offset: int
    size: int


_NOTHING = _Part(0, -1)


class _Sample(NamedTuple):
    """One sample: its shard's number, its key (path up to the first dot of the file name) and what we use of it."""

    shard: int
    key: str
    picture: _Part
    label: _Part = _NOTHING
    text: _Part = _NOTHING


class _Index:
    """Samples as arrays: 100 bytes for each instead of a thousand, and shared by all workers."""

    def __init__(self, samples: Sequence[_Sample]) -> None:
        self._keys = StringTable(sample.key for sample in samples)
        places = [(sample.shard, *sample.picture, *sample.label, *sample.text) for sample in samples]
        self._places = np.array(places, np.int64).reshape(-1, 7)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> _Sample:
        shard, *parts = self._places[index].tolist()
        return _Sample(shard, self._keys[index], _Part(*parts[:2]), _Part(*parts[2:4]), _Part(*parts[4:]))


class ShardSource:
    """The pictures of WebDataset shards, in the order in which they lie there.

    Each shard's headers are read once; a picture is then read by its place in the file. Files are opened per read, so
    workers share nothing. Links to other members are followed, and several archives may follow one another in a file. A
    damaged shard keeps what lies before the damage; that, samples without a picture and links that lead nowhere are
    counted in a warning. Labels come from `.cls` members; there are no class names.

    Args:
        paths: the shards, uncompressed.
        name: what reports call the source; the paths by default.
        enough_side: see `decode_picture`.
        max_pixels: see `decode_picture`.

    Attributes:
        without_picture: how many samples were passed over because they hold no picture.
        damaged: the shards that were cut short or damaged.

    Raises:
        FileNotFoundError: a shard is not there.
        ValueError: a file is no tar at all, or there is no picture in any shard.
    """

    classes: list[str] | None = None

    def __init__(
        self,
        paths: Sequence[str | Path],
        name: str | None = None,
        enough_side: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.paths = [Path(path) for path in paths]
        self.name = name or " ".join(str(path) for path in paths)
        self.enough_side = enough_side
        self.max_pixels = max_pixels
        self.without_picture = 0
        self.damaged: list[Path] = []
        self._samples = _Index([sample for shard in range(len(self.paths)) for sample in self._read(shard)])
        if self.without_picture:
            warnings.warn(f"{self.name}: {self.without_picture} samples hold no picture and are skipped", stacklevel=2)
        if not self._samples:
            raise ValueError(f"no pictures in {self.name!r}; a sample needs a member like 0001.jpg or 0001.png")

    def __len__(self) -> int:
        return len(self._samples)

    def read(self, index: int) -> Image.Image:
        """Picture `index` as 8-bit RGB; raises `PictureError` if it is broken."""
        content = self._bytes(index, self._samples[index].picture)
        return decode_picture(content, self.picture_name(index), self.enough_side, self.max_pixels)

    def picture_name(self, index: int) -> str:
        """Shard and key of picture `index`."""
        sample = self._samples[index]
        return f"{self.paths[sample.shard]}:{sample.key}"

    def label(self, index: int) -> int | None:
        """The number in the sample's `.cls` member, None if it has none; raises `PictureError` if it is no number."""
        part = self._samples[index].label
        if part == _NOTHING:
            return None
        content = self._bytes(index, part)
        try:
            return int(content)
        except ValueError as error:
            raise PictureError(self.picture_name(index), f"its {LABEL_SUFFIX} member is not a whole number") from error

    def text(self, index: int) -> str | None:
        """The caption in the sample's `.txt` (or `.text`, `.caption`) member, None if it has none."""
        part = self._samples[index].text
        return None if part == _NOTHING else self._bytes(index, part).decode("utf-8-sig", "replace")

    def fingerprint(self) -> str:
        """A hash of keys and picture sizes; it does not change when the shards are moved or renamed."""
        samples = (self._samples[index] for index in range(len(self)))
        return fingerprint_of(f"{sample.key}\t{sample.picture.size}" for sample in samples)

    def contents(self) -> np.ndarray:
        """See `HasContents.contents`: of each sample's picture, label and caption."""
        samples = [self._samples[index] for index in range(len(self))]
        places = [
            Place(self.paths[sample.shard], part.offset, max(part.size, 0))
            for sample in samples
            for part in (sample.picture, sample.label, sample.text)
        ]
        return combined(*file_contents(places).reshape(-1, 3).T)

    def _bytes(self, index: int, part: _Part) -> bytes:
        try:
            with open(self.paths[self._samples[index].shard], "rb", buffering=0) as file:
                file.seek(part.offset)
                return file.read(part.size)
        except OSError as error:
            raise PictureError(self.picture_name(index), str(error)) from error

    def _read(self, shard: int) -> list[_Sample]:
        """The samples of one shard that hold a picture."""
        path = self.paths[shard]
        contents = _read_headers(path)
        samples = []
        for key, members in contents.parts.items():
            pictures = [part for suffix, part in members.items() if suffix in SUFFIXES]
            if not pictures:
                self.without_picture += 1
                continue
            text = next((members[suffix] for suffix in TEXT_SUFFIXES if suffix in members), _NOTHING)
            samples.append(_Sample(shard, key, pictures[0], members.get(LABEL_SUFFIX, _NOTHING), text))
        if contents.lost_links:
            warnings.warn(
                f"{path}: {contents.lost_links} members are links to what is not in it and are left out; pack with tar "
                "--dereference",
                stacklevel=4,
            )
        if contents.damaged:
            self.damaged.append(path)
            warnings.warn(f"{path} is cut short or damaged; {len(samples)} samples survive", stacklevel=4)
        return samples


def write_shards(source: PictureSource, folder: str | Path, per_shard: int = 1000) -> list[Path]:
    """Writes a source as WebDataset shards `shard-000000.tar`, ...: lossless PNGs, and `.cls` where there is a label.

    Broken pictures are left out and counted in a warning.

    Returns:
        The paths of the shards.

    Raises:
        FileExistsError: there are shards in the folder, which would be mixed with the new ones.
    """
    if there := sorted(Path(folder).glob("shard-*.tar")):
        raise FileExistsError(
            f"{there[0]} is there: shards are not overwritten, nor mixed with others; choose another folder"
        )
    shards: list[Path] = []
    failures: list[PictureError] = []
    for first in range(0, len(source), per_shard):
        shards.append(Path(folder) / f"shard-{len(shards):06d}.tar")
        with atomic_path(shards[-1]) as temporary, tarfile.open(temporary, "w") as tar:
            for index in range(first, min(first + per_shard, len(source))):
                try:
                    _write_sample(tar, f"{index:09d}", source.read(index), source.label(index))
                except PictureError as error:
                    failures.append(error)
    if failures:
        warnings.warn(f"{len(failures)} broken pictures left out, the first is {failures[0]}", stacklevel=2)
    return shards


def _write_sample(tar: tarfile.TarFile, key: str, picture: Image.Image, label: int | None) -> None:
    png = io.BytesIO()
    picture.save(png, "PNG")
    members = {".png": png.getvalue()}
    if label is not None:
        members[LABEL_SUFFIX] = str(label).encode()
    for suffix, content in members.items():
        header = tarfile.TarInfo(key + suffix)
        header.size = len(content)
        tar.addfile(header, io.BytesIO(content))


@dataclass
class _Contents:
    """What the headers of a tar say.

    Attributes:
        parts: the complete members by key and suffix.
        damaged: whether the tar is damaged or cut short.
        lost_links: links whose target is not in the tar.
    """

    parts: dict[str, dict[str, _Part]] = field(default_factory=dict)
    damaged: bool = False
    lost_links: int = 0


def _read_headers(path: Path) -> _Contents:
    """Reads all archives of a file: several may follow one another (`cat a.tar b.tar`)."""
    contents = _Contents()
    length = path.stat().st_size
    start: int | None = 0
    with open(path, "rb") as file:
        while start is not None and not contents.damaged:
            file.seek(start)
            try:
                start = _read_archive(file, path, length, contents)
            except ValueError:
                if start == 0:
                    raise
                contents.damaged = True
    return contents


def _read_archive(file: IO[bytes], path: Path, length: int, contents: _Contents) -> int | None:
    """Reads the archive that begins here; where the next one begins, None if there is none."""
    if length < tarfile.BLOCKSIZE:
        contents.damaged = True
        return None
    with _open_tar(file, path) as tar:
        names: list[str] = []
        members: dict[str, _Part | str] = {}
        try:
            for member in tar:
                if member.isfile() and member.offset_data + member.size > length:
                    break
                found = _part_or_target(member)
                if found is not None:
                    names.append(member.name)
                    members[posixpath.normpath(member.name)] = found
        except (tarfile.TarError, EOFError):
            contents.damaged = True
        # A sound archive ends with blocks of zeros; `tarfile` also stops, silently, at a header that it cannot read.
        file.seek(tar.offset)
        contents.damaged |= file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE)
    for name in names:
        part = _followed(posixpath.normpath(name), members)
        if part is None:
            contents.lost_links += 1
        else:
            _sort_in(contents.parts, name, part)
    return None if contents.damaged else _next_archive(file)


def _next_archive(file: IO[bytes]) -> int | None:
    """Where something else than zeros begins, in whole blocks."""
    place = file.tell()
    while block := file.read(tarfile.RECORDSIZE):
        if block.strip(b"\0"):
            zeros = len(block) - len(block.lstrip(b"\0"))
            return place + zeros // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
        place += len(block)
    return None


def _open_tar(file: IO[bytes], path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=file, mode="r:")
    except tarfile.ReadError as error:
        raise ValueError(f"{str(path)!r} is not an uncompressed tar file: {error}") from error


def _part_or_target(member: tarfile.TarInfo) -> _Part | str | None:
    """Where a file's bytes lie, or the name that a link leads to; None for folders and devices."""
    if member.isfile():
        return _Part(member.offset_data, member.size)
    if member.islnk():
        return posixpath.normpath(member.linkname)
    if member.issym():
        return posixpath.normpath(posixpath.join(posixpath.dirname(member.name), member.linkname))
    return None


def _followed(name: str, members: Mapping[str, _Part | str]) -> _Part | None:
    """What a name leads to through links, if that is in the tar."""
    found: _Part | str | None = name
    for _ in range(MOST_LINKS):
        if not isinstance(found, str):
            return found
        found = members.get(found)
    return None


def _sort_in(parts: dict[str, dict[str, _Part]], name: str, part: _Part) -> None:
    folder, slash, file = name.rpartition("/")
    stem, dot, suffix = file.partition(".")
    if stem and dot and not stem.startswith("__"):
        parts.setdefault(folder + slash + stem, {})[dot + suffix.lower()] = part
