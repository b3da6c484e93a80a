"""Label files written by hand, by numpy or by tifffile, so that no decoder of ours has a hand in the truth."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import tifffile
from PIL import Image


def png(values: np.ndarray, bits: int, palette: bool = False, clear: bool = False) -> bytes:
    """A grey or palette PNG of 1, 2, 4, 8 or 16 bits; `clear` makes number 0 transparent."""
    height, width = values.shape
    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in values]
    else:
        each = ((values[:, :, None] >> np.arange(bits - 1, -1, -1)) & 1).reshape(height, width * bits)
        rows = [np.packbits(row.astype(np.uint8)).tobytes() for row in each]
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 3 if palette else 0, 0, 0, 0))]
    if palette:
        parts.append((b"PLTE", bytes((7 * number) % 256 for number in range(3 * 2**bits))))
    if clear:
        parts.append((b"tRNS", b"\0" if palette else b"\0\0"))
    parts += [(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def pgm(values: np.ndarray, most: int, plain: bool) -> bytes:
    """A PGM whose largest value is declared as `most`."""
    head = f"P{2 if plain else 5}\n# by hand\n{values.shape[1]} {values.shape[0]}\n{most}\n".encode()
    if plain:
        return head + b"\n".join(b" ".join(str(int(value)).encode() for value in row) for row in values) + b"\n"
    return head + values.astype("u1" if most < 256 else ">u2").tobytes()


def pfm(values: np.ndarray, big: bool) -> bytes:
    """A PFM: bottom row first, the sign of the scale says the order of bytes."""
    head = f"Pf\n{values.shape[1]} {values.shape[0]}\n{1.0 if big else -1.0}\n".encode()
    return head + values[::-1].astype(">f4" if big else "<f4").tobytes()


def npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def npz(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, depth=values)
    return file.getvalue()


def tiff(values: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def bmp(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(file, "BMP")
    return file.getvalue()
