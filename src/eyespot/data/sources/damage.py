"""Damage in picture files that Pillow passes over: checksums it does not look at, parts that lie nowhere."""

from __future__ import annotations

import zlib
from typing import Any

from PIL import Image

_PNG = b"\x89PNG\r\n\x1a\n"
_WIDTH, _HEIGHT, _BITS = 256, 257, 258
_PLACES = ((273, 279), (324, 325))
"""Tags of a TIFF's strips, or tiles: where they begin, and how many bytes they have."""
_PLAIN = 1


def png_fault(content: bytes) -> str | None:
    """What is wrong with the pixels of a PNG, by the checksums of their chunks; None of anything else."""
    if not content.startswith(_PNG):
        return None
    view, place = memoryview(content), len(_PNG)
    while place + 12 <= len(content):
        length, kind = int.from_bytes(view[place : place + 4], "big"), bytes(view[place + 4 : place + 8])
        end = place + 8 + length
        if kind == b"IDAT" and zlib.crc32(view[place + 4 : end]).to_bytes(4, "big") != view[end : end + 4]:
            return "its pixels are damaged (wrong checksum)" if end + 4 <= len(content) else "the file is cut short"
        place = end + 4
    return None


def tiff_fault(picture: Image.Image, length: int) -> str | None:
    """What is wrong with the pixels of a TIFF that is open but not decoded; None of anything else.

    Args:
        picture: the opened file.
        length: its bytes.
    """
    tags: Any = getattr(picture, "tag_v2", None)
    if tags is None:
        return None
    for begin, count in _PLACES:
        begins, counts = _numbers(tags.get(begin)), _numbers(tags.get(count))
        if any(not place or not size or place + size > length for place, size in zip(begins, counts, strict=False)):
            return "parts of its pixels are not in the file (sparse, or damaged)"
        if begins and len(counts) != len(begins):
            return "its parts have no lengths"
        if counts and tags.get(259, _PLAIN) == _PLAIN and sum(counts) < _bytes_of_pixels(tags):
            return "it holds fewer bytes than its pixels take"
    return _misread(picture)


def _numbers(value: Any) -> tuple[int, ...]:
    return () if value is None else (value,) if isinstance(value, int) else tuple(value)


def _bytes_of_pixels(tags: Any) -> int:
    bits = sum(_numbers(tags.get(_BITS, 1))) or 1
    return tags.get(_HEIGHT, 0) * -(-tags.get(_WIDTH, 0) * bits // 8)


def raw_modes(picture: Image.Image) -> list[tuple[str, str]]:
    """Decoder and raw mode of each part of an opened picture: L;4 is grey of 4 bits, I;16B has its high byte first."""
    tiles = [(tile.codec_name, tile.args) for tile in getattr(picture, "tile", ())]
    return [(codec, str(args[0] if isinstance(args, tuple) and args else args)) for codec, args in tiles]


def _misread(picture: Image.Image) -> str | None:
    """Pillow swaps the bytes of what libtiff has swapped already."""
    if any(codec == "libtiff" and raw.endswith(("BS", "BF")) for codec, raw in raw_modes(picture)):
        return "such numbers are not read rightly where they are compressed, high byte first; write it uncompressed"
    return None
