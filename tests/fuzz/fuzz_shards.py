"""WebDataset shards: every picture that is read is the one that was packed under that name; what is lost is told of."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path

import numpy as np
from fuzzing import Case, Skipped, Wrong, damage
from PIL import Image

from eyespot.data.sources.decode import PictureError
from eyespot.data.sources.shards import ShardSource

FORMATS = (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
LONG = "folder-of-a-long-name/" * 7
NAMES = ("0001", "000002", "b/0003", "ä/ö 4", "x" * 90, f"{LONG}5", "a-b_c", "sub/sub/6")


def draw(rng: random.Random, folder: Path) -> Case:
    path = folder / "pictures.tar"
    pixels: dict[str, list[np.ndarray]] = {}
    labels: dict[str, int] = {}
    parts = [_archive(rng, pixels, labels, kept) for kept in _shared(rng)]
    path.write_bytes(b"".join(parts))
    kind = damage(path, rng) if rng.random() < 0.7 else ""
    sound = not kind

    def act() -> tuple[dict[str, np.ndarray | PictureError], dict[str, int | None]]:
        source = ShardSource([path])
        found: dict[str, np.ndarray | PictureError] = {}
        numbers: dict[str, int | None] = {}
        for index in range(len(source)):
            key = source.picture_name(index).removeprefix(f"{path}:")
            try:
                found[key] = np.asarray(source.read(index))
                numbers[key] = source.label(index)
            except PictureError as error:
                found[key] = error
        return found, numbers

    def judge(answer: tuple[dict, dict], warned: list[str]) -> None:
        found, numbers = answer
        everything = [version for versions in pixels.values() for version in versions]
        broken = {key: value for key, value in found.items() if isinstance(value, PictureError)}
        for key, error in broken.items():
            if sound or key not in str(error):
                raise Wrong(f"picture {key} is broken: {error}")
        for key, value in found.items():
            # Of several members of one name the last counts, as on unpacking; of a damaged shard any that is left.
            # Headers have checksums, but the long names that stand before some of them have none.
            known = pixels.get(key, [] if sound else everything)
            versions = known if kind else known[-1:]
            if key not in broken and not any(np.array_equal(value, version) for version in versions):
                raise Wrong(f"picture {key} is not what was packed")
        if sound and {key: number for key, number in numbers.items() if number is not None} != labels:
            raise Wrong(f"labels {numbers} in place of {labels}")
        lost = pixels.keys() - found.keys()
        told = any(str(path) in text for text in warned)
        # A cut between two archives leaves a sound one; names that stand before the headers have no checksums.
        untellable = path.read_bytes().endswith(bytes(1024)) and kind == "truncated" and len(parts) > 1
        if any(len(key) < 90 and key.isascii() for key in lost) and not told and not untellable:
            raise Wrong(f"{len(lost)} pictures are lost without a word")
        if lost or broken:
            raise Skipped

    count = len(pixels)
    words = f"{count} pictures in {len(parts)} archives {kind}"
    return Case(words, act, [str(path)], judge, may_refuse=not sound or not count)


def _shared(rng: random.Random) -> list[list[str]]:
    """The names of each archive: mostly one archive, sometimes two that follow one another, sometimes empty."""
    names = rng.sample(NAMES, rng.choice((0, 1, 3, 5)))
    if rng.random() < 0.8:
        return [names]
    middle = len(names) // 2
    return [names[:middle], names[middle:]]


def _archive(
    rng: random.Random, pixels: dict[str, list[np.ndarray]], labels: dict[str, int], names: list[str]
) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=rng.choice(FORMATS)) as tar:
        first = ""
        for name in names:
            if rng.random() < 0.3:
                header = tarfile.TarInfo(f"empty{len(pixels)}")
                header.type = tarfile.DIRTYPE
                tar.addfile(header)
            if first and rng.random() < 0.3:  # a link to another picture
                header = tarfile.TarInfo(f"{name}.png")
                header.type, header.linkname = tarfile.LNKTYPE, f"{first}.png"
                tar.addfile(header)
                pixels[name] = pixels[first][-1:]
                continue
            for _ in range(rng.choice((1, 1, 1, 2))):
                colour = np.full((4, 5, 3), rng.randrange(256), np.uint8)
                pixels.setdefault(name, []).append(colour)
                png = io.BytesIO()
                Image.fromarray(colour).save(png, "PNG")
                _add(tar, f"{name}.png", png.getvalue())
            first = first or name
            if rng.random() < 0.5:
                labels[name] = rng.randrange(-1, 1000)
                _add(tar, f"{name}.cls", f"{labels[name]}\n".encode())
            if rng.random() < 0.3:
                _add(tar, f"{name}.txt", b"a picture")
    return file.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    tar.addfile(header, io.BytesIO(content))
