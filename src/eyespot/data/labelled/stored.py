"""Arrays in label files, exactly as they were stored.

Pictures are decoded by Pillow, which is made for eyes: it stretches greys of few bits to 255, turns some upside down in
brightness, drops what it has no room for. Such changes are undone here where that is exact; the rest is refused, with
what to do about it.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from eyespot.data.sources.damage import png_fault, raw_modes, tiff_fault
from eyespot.data.sources.decode import MAX_PIXELS
from eyespot.files import read_array, reason_of

FORMATS = ("PNG", "TIFF", "BMP", "PPM")
"""Pictures that keep every number; by content, not by suffix."""
LOSSY = ("JPEG", "WEBP", "GIF", "AVIF", "JPEG2000")
_TIFF_LOSSLESS = {"raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "lzma", "zstd", "tiff_raw_16"}
_PHOTOMETRIC, _SAMPLES, _SAMPLE_FORMAT, _BITS, _ORIENTATION = 262, 277, 339, 258, 274
_AS_ARRAY = "save it as .npy (numpy.save), or masks as PNG of 8 or 16 bits"
_WAYS_OUT = {
    ".exr": "read it with OpenEXR or OpenCV and save metres as .npy",
    ".mat": "read it with scipy.io.loadmat or h5py and save the array as .npy",
    ".h5": "read it with h5py and save the array as .npy",
    ".hdf5": "read it with h5py and save the array as .npy",
    ".json": "polygons have to be drawn first, one class number per pixel, as PNG",
    ".txt": "polygons have to be drawn first, one class number per pixel, as PNG",
    ".xml": "polygons have to be drawn first, one class number per pixel, as PNG",
    ".jpg": "JPEG changes numbers; write PNG",
    ".jpeg": "JPEG changes numbers; write PNG",
    ".webp": "write PNG",
    ".gif": "write PNG",
    ".pbm": "in it 1 is black; write PNG",
    ".ppm": "write one number per pixel, as PNG",
    ".dpt": "read it with the reader that comes with the data and save metres as .npy",
}
"""What label files are called elsewhere, and what to do with them."""


class LabelFileError(ValueError):
    """A label file that cannot be read as it was meant."""


def label_file(folder: Path, name: str, suffixes: Sequence[str]) -> Path:
    """The label file of a picture: the first of some suffixes that is there, or NAME.png that is not.

    Args:
        folder: of the label files.
        name: the picture's, without suffix.
        suffixes: what is read, the preferred first.

    Raises:
        ValueError: there is only one of a kind that is not read; says what to do.
    """
    places = [folder / f"{name}{suffix}" for suffix in suffixes]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        for suffix, way_out in _WAYS_OUT.items():
            if (other := folder / f"{name}{suffix}").is_file():
                raise ValueError(f"{other}: label maps are read from {', '.join(suffixes)}, not from this: {way_out}")
    return found or folder / f"{name}.png"


def read_stored(path: Path) -> np.ndarray:
    """The numbers of a label file, [H, W] or [H, W, C], of any kind of integer or float, or bool.

    Args:
        path: a picture (PNG, TIFF, BMP, PGM, PFM), by content; or .npy, or .npz with a single array.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is damaged, or a decoder would not give what was stored; names the file and the way out.
    """
    if path.suffix in (".npy", ".npz"):
        return _without_axes_of_one(_numbers(read_array(path), path))
    try:
        content = path.read_bytes()
        if fault := png_fault(content):
            raise LabelFileError(f"{path}: {fault}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = Image.open(io.BytesIO(content), formats=FORMATS)
        with picture:
            return _exactly(picture, path, content)
    except (LabelFileError, MemoryError, FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except UnidentifiedImageError:
        raise LabelFileError(f"{path} is no sound PNG, TIFF, BMP, PGM or PFM{_why_not(path)}; {_AS_ARRAY}") from None
    except Exception as error:  # on damaged bytes Pillow's plugins raise nearly anything, from struct.error to KeyError
        raise LabelFileError(f"{path} is damaged or of an unknown kind ({reason_of(error)})") from error


def _why_not(path: Path) -> str:
    """Whether it is a picture of the wrong kind."""
    try:
        with Image.open(path, formats=LOSSY) as picture:
            return f" but {picture.format}, which changes the numbers that it stores"
    except Exception:
        return ""


def read_mat(path: Path, entry: str, **options: Any) -> Any:
    """An entry of a .mat file, as `scipy.io.loadmat` gives it with these options.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is damaged, or has no such entry; names it.
    """
    from scipy.io import loadmat

    content = io.BytesIO(path.read_bytes())
    try:
        return loadmat(content, variable_names=[entry], **options)[entry]
    except MemoryError:
        raise
    except Exception as error:  # on damaged bytes SciPy raises nearly anything
        raise LabelFileError(f"{path} has no readable entry {entry} ({reason_of(error)}); is it damaged?") from error


def _numbers(stored: np.ndarray, path: Path) -> np.ndarray:
    if stored.dtype.kind not in "buif":
        raise LabelFileError(f"{path} holds {stored.dtype}, no numbers; save plain integers or floats")
    if stored.ndim < 2 or not stored.size:
        raise LabelFileError(f"{path} holds an array of shape {stored.shape}, no map [H, W]")
    return stored.astype(stored.dtype.newbyteorder("="), copy=False)


def _without_axes_of_one(stored: np.ndarray) -> np.ndarray:
    """[H, W, 1] and [1, H, W] as [H, W], which several data sets write."""
    if stored.ndim == 3 and stored.shape[2] == 1:
        return stored[:, :, 0]
    return stored[0] if stored.ndim == 3 and stored.shape[0] == 1 else stored


def _exactly(picture: Image.Image, path: Path, content: bytes) -> np.ndarray:
    """What was stored, of a picture that is open but not decoded; `content` is that of its file."""
    if picture.width * picture.height > MAX_PIXELS:
        raise LabelFileError(f"{path} would have {picture.width} x {picture.height} pixels, above {MAX_PIXELS:,}")
    if fault := tiff_fault(picture, len(content)):
        raise LabelFileError(f"{path}: {fault}")
    raw = next((mode for _, mode in raw_modes(picture)), "")
    if refusal := _refusal(picture, raw, content):
        raise LabelFileError(f"{path} {refusal}; {_AS_ARRAY}")
    tags: Any = getattr(picture, "tag_v2", {})
    signed = tags.get(_SAMPLE_FORMAT, (1,))[0] == 2
    bits = tags.get(_BITS, (0,))[0]
    most = _largest_of_netpbm(picture)
    values = np.asarray(picture)  # decodes
    if raw.startswith(("L;2", "L;4")):
        return values // (85 if raw.startswith("L;2") else 17)  # stretched to 255
    if most is not None:
        stretched = values * (most / (65535 if picture.mode == "I" else 255))
        return np.rint(stretched).astype(np.uint16 if picture.mode == "I" else np.uint8)
    if bits == 8 and signed:
        return values.view(np.int8)
    if bits == 32 and values.dtype == np.int32 and not signed:
        return values.view(np.uint32)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _largest_of_netpbm(picture: Image.Image) -> int | None:
    """The largest value that a PGM declares; Pillow stretches it to 255 or 65535."""
    if picture.format != "PPM" or picture.mode not in ("L", "I"):
        return None
    args: Any = picture.tile[0].args  # type: ignore[attr-defined]
    return int(args[1]) if isinstance(args, tuple) else 65535 if picture.mode == "I" else 255


def _refusal(picture: Image.Image, raw: str, content: bytes) -> str | None:
    """Why Pillow would not give the stored numbers of a picture, None if it does or if that can be undone."""
    if getattr(picture, "n_frames", 1) > 1:
        return "holds several pictures, of which one is meant"
    if picture.getexif().get(_ORIENTATION, 1) != 1:
        return "is to be turned by its EXIF data, as label maps are not"
    if "16" in raw and picture.mode in ("RGB", "RGBA"):
        return "has colours of 16 bits, of which 8 would be left"
    if picture.format == "BMP":
        return _bmp_refusal(picture, content)
    if picture.format == "TIFF":
        return _tiff_refusal(picture)
    return _netpbm_refusal(picture) if picture.format == "PPM" else None


def _tiff_refusal(picture: Any) -> str | None:
    tags = picture.tag_v2
    if (compression := picture.info.get("compression")) not in _TIFF_LOSSLESS:
        return f"is compressed by {compression}, which may change numbers"
    if tags.get(_PHOTOMETRIC) == 0:
        return "calls 0 white (MINISWHITE), so that tools disagree on what it holds"
    if tags.get(_PHOTOMETRIC) not in (1, 2, 3):
        return f"has colours of kind {tags.get(_PHOTOMETRIC)}"
    if tags.get(_SAMPLES, 1) != len(picture.getbands()):
        return f"has {tags.get(_SAMPLES, 1)} numbers per pixel"
    return None


def _bmp_refusal(picture: Any, content: bytes) -> str | None:
    """Pillow takes a grey palette for grey of 8 bits, or black and white for 1 bit, whatever the file has."""
    place = 24 if content[14] == 12 else 28  # of OS/2, or of Windows
    bits = int.from_bytes(content[place : place + 2], "little")
    if picture.mode in ("L", "1") and bits != {"L": 8, "1": 1}[picture.mode]:
        return f"is a BMP of {bits} bits with a grey palette, which cannot be read surely"
    return None


def _netpbm_refusal(picture: Any) -> str | None:
    if picture.mode == "1":
        return "is a PBM, in which 1 is black"
    if picture.mode == "F" and picture.info.get("scale") != 1:
        return f"is a PFM in a scale of its own ({picture.info.get('scale'):g})"
    return None
