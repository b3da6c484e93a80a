"""Decoding: any picture file, however odd, becomes an 8-bit RGB picture or a `PictureError` that says why not."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from eyespot.data.sources.damage import png_fault, tiff_fault
from eyespot.files import reason_of

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
"""What is decoded, by content and not by suffix. Formats that run other programs (EPS, PDF) are left out on purpose."""

SUFFIXES = frozenset(
    (
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".gif",
        ".bmp",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".avif",
    )
)
"""Which files count as pictures, in lower case."""

MAX_PIXELS = 178_956_970
"""Default limit on the pixels of one decoded picture: half a gigabyte as RGB, and where Pillow itself refuses."""


_SAY_ROTATION = {"exif", "xmp"}
"""Where a JPEG can say that it is rotated."""


class PictureError(ValueError):
    """A picture that cannot be read.

    Attributes:
        name: which picture, e.g. its path.
        reason: what is wrong with it.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def decode_picture(
    data: bytes | Path, name: str | None = None, enough_side: int | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Decodes one picture to 8-bit RGB, upright.

    The first frame of an animation is taken, the EXIF rotation applied, transparency laid on white. 16-bit greys are
    divided by 257; 32-bit integers that need more than 16 bits by 2^23; floats are read in [0, 1], or in [0, 255] if
    any value is above 1.

    Args:
        data: the file's content, or its path.
        name: what errors call the picture; the path by default.
        enough_side: how many pixels along the longer side are enough. Larger pictures are shrunk by a whole factor as
            far as they keep so many, JPEGs already while they are decoded (libjpeg's draft mode): the longer side ends
            below twice this. Whoever crops and resizes afterwards does the fine work once. None keeps every pixel.
        max_pixels: pictures that decode to more pixels than this are refused (decompression bombs).

    Returns:
        A loaded picture of mode "RGB".

    Raises:
        PictureError: the file cannot be read, is no picture, is truncated or corrupt, or exceeds `max_pixels`.
    """
    if name is None:
        name = str(data) if isinstance(data, Path) else "picture"
    try:
        content = data.read_bytes() if isinstance(data, Path) else data
        if not content:
            raise PictureError(name, "the file is empty")
        if fault := png_fault(content):
            raise PictureError(name, fault)
        with _own_pixel_limit(), Image.open(io.BytesIO(content), formats=_formats()) as image:
            if fault := tiff_fault(image, len(content)):
                raise PictureError(name, fault)
            return _decoded(image, name, enough_side, max_pixels)
    except (PictureError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise PictureError(name, f"not a picture in a known format ({', '.join(FORMATS)})") from error
    except Exception as error:  # on hostile bytes Pillow's plugins raise nearly anything, from struct.error to KeyError
        raise PictureError(name, reason_of(error)) from error


def _decoded(image: Image.Image, name: str, enough_side: int | None, max_pixels: int) -> Image.Image:
    if (factor := _spare_factor(image, enough_side)) > 1:
        # A request: libjpeg decodes at 1/2, 1/4 or 1/8, whichever leaves no less; other formats take no notice.
        image.draft(None, (max(1, image.width // factor), max(1, image.height // factor)))
    if image.width * image.height > max_pixels:
        raise PictureError(
            name,
            f"{image.width} x {image.height} pixels are more than the limit of {max_pixels:,}; shrink the picture "
            "or raise max_pixels",
        )
    image.load()
    _turn_upright(image)
    rgb = _to_rgb(image)
    factor = _spare_factor(rgb, enough_side)
    return rgb.reduce(factor) if factor > 1 else rgb


def _spare_factor(image: Image.Image, enough_side: int | None) -> int:
    """The largest whole number by which both sides can be divided while the longer one keeps enough pixels."""
    return 1 if enough_side is None else max(1, max(image.size) // enough_side)


def _turn_upright(image: Image.Image) -> None:
    if image.format == "JPEG" and not _SAY_ROTATION & image.info.keys():
        return
    # Damaged EXIF data beside good pixels: the parser raises anything, and the picture stays as it was stored.
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_to_8_bit(np.asarray(image)))
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, with_alpha).convert("RGB")
    if image.mode == "RGB" and image.format == "JPEG":
        return image  # loaded, it keeps nothing of the file but a few tables
    # `convert` copies, so the result never hangs on the file that is about to be closed.
    return image.convert("RGB")


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f":
        values = np.nan_to_num(values, nan=0.0, posinf=1.0, neginf=0.0)
        scale = 255.0 if values.max() <= 1 else 1.0
    elif values.max() > 65535:
        scale = 1 / 2**23
    else:
        scale = 1 / 257
    return np.clip(np.rint(values * scale), 0, 255).astype(np.uint8)


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@contextlib.contextmanager
def _own_pixel_limit() -> Iterator[None]:
    """Silences Pillow's warnings and its pixel limit, which knows nothing of draft mode; ours stands in for it."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
