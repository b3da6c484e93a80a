"""Pictures: whatever lies in a file, `decode_picture` gives its pixels or says in our words why not.

Pixels are those that were drawn. Every part of a PNG has a checksum, so that a damaged one shows what was drawn or is
refused; other formats have none, and a damaged picture of theirs may be another picture.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
from fuzzing import Case, Wrong, damage
from PIL import Image

from eyespot.data.sources.decode import decode_picture

LOSSLESS = {".png": "PNG", ".bmp": "BMP", ".tif": "TIFF", ".ppm": "PPM", ".gif": "GIF", ".webp": "WEBP"}
LOSSY = {".jpg": "JPEG", ".avif": "AVIF"}
MODES = ("RGB", "L", "RGBA", "LA", "P", "1", "I;16", "CMYK", "F", "I")
WRITES = {
    ".png": {"RGB", "L", "RGBA", "LA", "P", "1", "I;16"},
    ".bmp": {"RGB", "L", "P", "1"},
    ".tif": set(MODES) - {"I"},
    ".ppm": {"RGB", "L", "1", "I;16"},
    ".gif": {"L", "P"},
    ".webp": {"RGB", "RGBA"},
    ".jpg": {"RGB", "L", "CMYK"},
    ".avif": {"RGB", "RGBA"},
}
TURNS = {1: 0, 3: 2, 6: 3, 8: 1}  # EXIF orientation -> quarter turns against the clock


def draw(rng: random.Random, folder: Path) -> Case:
    suffix = rng.choice([*LOSSLESS, *LOSSY])
    mode = rng.choice(sorted(WRITES[suffix]))
    size = rng.choice(((1, 1), (1, 40), (33, 17), (64, 64), (7, 300)))
    picture, seen = _picture(rng, mode, size)
    path = folder / f"picture{suffix}"
    turn = rng.choice((1, 1, 3, 6, 8)) if suffix in (".jpg", ".png", ".tif", ".webp") else 1
    _save(picture, path, {**LOSSLESS, **LOSSY}[suffix], turn)
    seen = np.rot90(seen, TURNS[turn])
    words = f"{suffix} {mode} {size} turn {turn}"
    if rng.random() < 0.2:  # the suffix says nothing
        path = path.rename(folder / f"picture{rng.choice([*LOSSLESS, *LOSSY])}")
    kind = damage(path, rng) if rng.random() < 0.7 else ""
    protected = suffix == ".png" and turn == 1
    tolerance = 12.0 if suffix in LOSSY or mode == "CMYK" else 1.0

    def judge(found: Image.Image, warned: list[str]) -> None:
        if found.mode != "RGB" or not found.width or not found.height:
            raise Wrong(f"mode {found.mode} {found.size}")
        pixels = np.asarray(found).astype(np.float32)
        if kind:
            if protected and (pixels.shape != seen.shape or np.abs(pixels - seen).max() > 1):
                raise Wrong("a damaged PNG shows other pixels: it has checksums")
        elif pixels.shape != seen.shape:
            raise Wrong(f"shape {pixels.shape} in place of {seen.shape}")
        elif np.abs(pixels - seen).mean() > tolerance:
            raise Wrong(f"pixels differ by {np.abs(pixels - seen).mean():.1f}")

    return Case(f"{words} {kind}", lambda: decode_picture(path), [str(path)], judge, may_refuse=bool(kind))


def _picture(rng: random.Random, mode: str, size: tuple[int, int]) -> tuple[Image.Image, np.ndarray]:
    """A smooth picture, and what is to be seen of it: float [H, W, 3] in 0 to 255."""
    width, height = size
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    a, b, c = (rng.random() for _ in range(3))
    grey = 255 * (a * across + b * down + c) / (a + b + c)
    if mode in ("L", "1", "I;16", "F", "I", "LA"):
        seen = np.repeat(grey[:, :, None], 3, 2)
        if mode == "1":
            bits = grey > 127
            return Image.fromarray(bits), np.repeat(bits[:, :, None] * 255.0, 3, 2)
        if mode == "I;16":
            return Image.fromarray(np.rint(grey * 257).astype(np.uint16)), seen
        if mode == "F":
            return Image.fromarray((grey / 255).astype(np.float32)), seen
        if mode == "LA":
            alpha = np.full_like(grey, 255.0) if a < 0.5 else np.zeros_like(grey)
            picture = Image.fromarray(np.stack([grey, alpha], 2).astype(np.uint8), "LA")
            return picture, seen if a < 0.5 else np.full_like(seen, 255.0)
        return Image.fromarray(grey.astype(np.uint8)), seen
    colours = np.stack([grey, 255 - grey, np.full_like(grey, 255 * a)], 2)
    plain = Image.fromarray(colours.astype(np.uint8))
    if mode == "P":
        palette = plain.quantize(16)
        return palette, np.asarray(palette.convert("RGB")).astype(np.float32)
    if mode == "RGBA":
        plain.putalpha(255 if a < 0.5 else 0)
        return plain, colours if a < 0.5 else np.full_like(colours, 255.0)
    return plain.convert(mode), colours


def _save(picture: Image.Image, path: Path, kind: str, turn: int) -> None:
    options: dict[str, object] = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    if turn != 1:
        exif = Image.Exif()
        exif[0x0112] = turn
        options["exif"] = exif
    picture.save(path, kind, **options)
