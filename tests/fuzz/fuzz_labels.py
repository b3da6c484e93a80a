"""Label files: what an independent writer wrote is what is read; damaged ones are refused or hold what another reader
sees in them.

Masks, depth maps, normals and boundaries are written by tifffile, by numpy, or byte by byte (PNG, PGM, PFM), so that no
decoder of ours has a hand in the truth.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
from fuzzing import Case, Wrong, damage
from PIL import Image
from torch import Tensor

from eyespot.data.labelled.label_files import read_boundaries, read_depth, read_mask, read_matrix, read_normals
from label_writers import bmp, npy, npz, pfm, pgm, png, tiff

Written = tuple[str, bytes, np.ndarray]
"""Suffix, content, and the numbers in it."""


def integers(rng: random.Random, shape: tuple[int, int]) -> Written:
    """One integer per pixel in a format of its own."""
    numbers = np.random.default_rng(rng.randrange(2**32))
    bits = rng.choice((1, 2, 4, 8, 16))
    values = numbers.integers(0, 2**bits, shape)
    plain = values.astype(np.uint16 if bits == 16 else np.uint8)
    most = rng.choice((2**bits - 1, 255 if bits < 16 else 65535))
    signed = (values % 128).astype(rng.choice((np.int8, np.int16, np.int32, np.int64)))
    kinds: list[Callable[[], Written]] = [
        lambda: (".png", png(values, bits, clear=rng.random() < 0.3), values),
        lambda: (".png", png(values, bits, palette=bits < 16, clear=bits < 16 and rng.random() < 0.3), values),
        lambda: (".pgm", pgm(values, most, rng.random() < 0.5), values),
        lambda: (".npy", npy(_layout(rng, plain)), values),
        lambda: (".npy", npy(_layout(rng, signed)), signed),
        lambda: (".npz", npz(plain), values),
        lambda: (".npy", npy(plain[..., None] if rng.random() < 0.5 else plain[None]), values),
        lambda: (".tif", tiff(plain, **_tiff_options(rng)), values),
        lambda: (".tif", tiff(signed.astype(rng.choice((np.int8, np.int16, np.int32))), **_tiff_options(rng)), signed),
        lambda: (".tif", tiff(values.astype(np.uint32), byteorder="<"), values),
        lambda: (".bmp", bmp(values % 256), values % 256),
    ]
    suffix, content, truth = rng.choice(kinds)()
    return suffix, content, truth


def floats(rng: random.Random, shape: tuple[int, int]) -> Written:
    """One float per pixel, some of them no measurement."""
    values = np.random.default_rng(rng.randrange(2**32)).uniform(0.1, 60, shape)
    for nothing in (np.nan, np.inf, -np.inf, 0.0, -3.0):
        values[rng.randrange(shape[0]), rng.randrange(shape[1])] = nothing
    kind = rng.choice((np.float16, np.float32, np.float64))
    kept = values.astype(kind)
    single = values.astype(np.float32)
    kinds: list[Callable[[], Written]] = [
        lambda: (".npy", npy(_layout(rng, kept)), kept),
        lambda: (".npz", npz(kept), kept),
        lambda: (".tif", tiff(single, **_tiff_options(rng)), single),
        lambda: (".pfm", pfm(single, rng.random() < 0.5), single),
    ]
    return rng.choice(kinds)()


def _layout(rng: random.Random, values: np.ndarray) -> np.ndarray:
    values = values.astype(values.dtype.newbyteorder(rng.choice("<>")))
    return np.asfortranarray(values) if rng.random() < 0.3 else values


def _tiff_options(rng: random.Random) -> dict[str, object]:
    options: dict[str, object] = {"byteorder": rng.choice("<>"), "photometric": "minisblack"}
    options |= rng.choice(({}, {"compression": "zlib"}, {"rowsperstrip": 2}))
    return options | rng.choice(({}, {}, {"tile": (16, 16)}))


def _depth_truth(stored: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        metres = (stored.astype(np.float64) * (1 if stored.dtype.kind == "f" else 0.001)).astype(np.float32)
    sound = np.isfinite(metres) & (metres > 0) & (stored != 65535)
    return np.where(sound, metres, 0).astype(np.float32)


READERS: dict[str, tuple[Callable[[Path], Tensor], Callable[[np.ndarray], np.ndarray]]] = {
    "mask": (read_mask, lambda stored: stored),
    "depth": (read_depth, _depth_truth),
    "boundaries": (read_boundaries, lambda stored: (stored >= stored.max() / 2) & (stored.max() > 0)),
}


def draw(rng: random.Random, folder: Path) -> Case:
    what = rng.choice((*READERS, "depth", "normals", "matrix"))
    if what in ("normals", "matrix"):
        return _normals(rng, folder) if what == "normals" else _matrix(rng, folder)
    shape = rng.choice(((1, 1), (5, 7), (17, 33), (1, 20), (40, 3)))
    suffix, content, stored = (floats if what == "depth" and rng.random() < 0.6 else integers)(rng, shape)
    path = folder / f"label{suffix}"
    path.write_bytes(content)
    kind = damage(path, rng) if rng.random() < 0.5 else ""
    read, truth = READERS[what]

    def judge(found: Tensor, warned: list[str]) -> None:
        wanted = truth(stored) if not kind else _of_another_reader(path, truth)
        if found.ndim != 2:
            raise Wrong(f"shape {tuple(found.shape)}")
        if wanted is None:
            return
        if tuple(found.shape) != wanted.shape or not np.allclose(found.numpy(), wanted, rtol=1e-6, atol=0):
            raise Wrong(f"{found.flatten()[:6].tolist()} in place of {np.ravel(wanted)[:6].tolist()}")

    words = f"{what} {suffix} {stored.dtype} {shape} {content[:2]!r} {kind}"
    misread = content[:2] == b"MM" and _is_compressed(content)  # by Pillow
    one_bit = what == "depth" and content[24:26] == b"\1\0"  # no depth
    may_refuse = bool(kind) or misread or one_bit
    return Case(words, lambda: read(path), [str(path)], judge, may_refuse=may_refuse)


def _is_compressed(content: bytes) -> bool:
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        return file.pages[0].compression != 1


def _of_another_reader(path: Path, truth: Callable[[np.ndarray], np.ndarray]) -> np.ndarray | None:
    """What numpy or tifffile sees in a damaged file; None where they see nothing, or something else than a map."""
    try:
        if path.suffix == ".npy":
            stored = np.load(path, allow_pickle=False)
        elif path.suffix == ".tif" and path.read_bytes()[:2] in (b"II", b"MM"):
            stored = tifffile.imread(path)
        else:
            return None
    except Exception:
        return None
    return truth(stored) if stored.ndim == 2 and stored.dtype.kind in "uif" and stored.size else None


def _normals(rng: random.Random, folder: Path) -> Case:
    """Unit vectors as floats or bytes, some of them missing."""
    vectors = np.random.default_rng(rng.randrange(2**32)).normal(size=(6, 9, 3))
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    vectors[2, 3] = 0
    path = folder / ("normals.npy" if (as_floats := rng.random() < 0.5) else "normals.png")
    if as_floats:
        np.save(path, vectors.astype(rng.choice((np.float16, np.float32, np.float64))))
    else:
        Image.fromarray(np.rint((vectors + 1) * 127.5).astype(np.uint8)).save(path)
    kind = damage(path, rng) if rng.random() < 0.5 else ""

    def judge(found: Tensor, warned: list[str]) -> None:
        lengths = found.norm(dim=0)
        if not bool(((lengths - 1).abs() < 1e-3).logical_or(lengths == 0).all()):
            raise Wrong(f"lengths {lengths.unique()[:5].tolist()}")
        if not kind and not np.allclose(found.permute(1, 2, 0).numpy(), vectors, atol=1e-2):
            raise Wrong("other vectors")

    return Case(f"{path.name} {kind}", lambda: read_normals(path), [str(path)], judge, may_refuse=bool(kind))


def _matrix(rng: random.Random, folder: Path) -> Case:
    """A camera's matrix in a text file."""
    side = rng.choice((3, 4))
    matrix = np.random.default_rng(rng.randrange(2**32)).normal(size=(side, side)) * 100
    path = folder / "camera-intrinsics.txt"
    text = "\n".join(rng.choice((" ", "\t", "   ")).join(map(repr, row)) for row in matrix.tolist())
    path.write_text(text + rng.choice(("", "\n", "\n\n")), encoding=rng.choice(("utf-8", "utf-8-sig", "utf-16")))
    kind = damage(path, rng) if rng.random() < 0.5 else ""

    def judge(found: Tensor, warned: list[str]) -> None:
        if tuple(found.shape) != (side, side) or not bool(found.isfinite().all()):
            raise Wrong(f"{found}")
        if not kind and not np.array_equal(found.numpy(), matrix):
            raise Wrong(f"{found} in place of {matrix}")

    return Case(f"matrix {side} {kind}", lambda: read_matrix(path, side), [str(path)], judge, may_refuse=bool(kind))
