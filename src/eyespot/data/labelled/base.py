"""What the protocols are given: pictures that can be had at any size, and their labels.

Pixel coordinates are continuous everywhere: the top left corner of a picture is (0, 0), the centre of its first pixel
(0.5, 0.5).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, overload

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from eyespot.contents import FileState, file_contents
from eyespot.data.sources.decode import decode_picture
from eyespot.data.sources.fingerprint import files_fingerprint

LabelMaps = Sequence[Tensor] | Tensor  # one map [H, W] per picture; a tensor [N, H, W] if they are of one size

KEPT_BYTES = 128 << 20
CROP_SHARE = 224 / 256  # EUPE's k-NN transform: shorter side 256, centre crop 224


class Pictures(Protocol):
    """Pictures that can be read at any size, so that every encoder is served at its own from the original."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int, size: tuple[int, int]) -> Tensor:
        """Pictures `start` to `stop` (exclusive) as float32 [n, 3, height, width] in [0, 1]."""
        ...

    def original(self, index: int) -> Tensor:
        """One whole picture at its own size, uint8 [3, H, W]."""
        ...

    def fingerprint(self) -> str:
        """Tells whether these are the same pictures, in the same order and cut in the same way."""
        ...


class TensorPictures:
    """Pictures in memory: [N, 3, H, W], uint8 or floating point in [0, 1]; resized bilinearly with antialiasing."""

    def __init__(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"expected pictures [N, 3, H, W], got {tuple(images.shape)}")
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def read(self, start: int, stop: int, size: tuple[int, int]) -> Tensor:
        """See `Pictures.read`."""
        images = self.images[start:stop]
        images = images.float() if images.is_floating_point() else images.float() / 255
        if tuple(images.shape[2:]) == size:
            return images
        return F.interpolate(images, size=size, mode="bilinear", antialias=True).clamp(0, 1)

    def original(self, index: int) -> Tensor:
        """See `Pictures.original`."""
        image = self.images[index]
        return (image * 255).round().to(torch.uint8) if image.is_floating_point() else image

    def fingerprint(self) -> str:
        """See `Pictures.fingerprint`: of the pixels."""
        return tensor_fingerprint(self.images)


class FilePictures:
    """Picture files, decoded when they are read.

    Args:
        paths: the files.
        crop: False squeezes the whole picture to the wanted size (bilinear, antialiased), so that labels of every
            pixel stay in place. True keeps the proportions: the shorter side becomes 256/224 of the wanted size
            (bicubic, antialiased), then the centre is cut out, as in EUPE's k-NN transform.
    """

    def __init__(self, paths: Sequence[Path], crop: bool = False) -> None:
        self.paths = list(paths)
        self.crop = crop

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, start: int, stop: int, size: tuple[int, int]) -> Tensor:
        """See `Pictures.read`. A broken file raises the decoder's error, which names it."""
        return read_fitted(self.paths[start:stop], size, self.crop)

    def original(self, index: int) -> Tensor:
        """See `Pictures.original`; never cut."""
        return torch.from_numpy(np.array(decode_picture(self.paths[index]))).permute(2, 0, 1)

    def fingerprint(self) -> str:
        """See `Pictures.fingerprint`: of names, sizes in bytes and the way of cutting."""
        return files_fingerprint(self.paths, f"crop {self.crop}")

    def contents(self) -> np.ndarray:
        """See `HasContents.contents`."""
        return file_contents(self.paths)


def read_fitted(files: Sequence[Path | bytes], size: tuple[int, int], crop: bool) -> Tensor:
    """Picture files, or their contents, at one size: float32 [n, 3, height, width] in [0, 1]; see `FilePictures`."""
    fit = _centre_crop if crop else _squeeze
    pictures = [np.asarray(fit(decode_picture(file), size)) for file in files]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


def _squeeze(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    return picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)


def _centre_crop(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    height, width = size
    scale = max(height / picture.height, width / picture.width) / CROP_SHARE
    whole = (max(width, round(picture.width * scale)), max(height, round(picture.height * scale)))
    left, top = (whole[0] - width) // 2, (whole[1] - height) // 2
    across, down = picture.width / whole[0], picture.height / whole[1]
    right, bottom = min((left + width) * across, picture.width), min((top + height) * down, picture.height)
    # Only what is kept is computed: a line of one pixel by thousands would be enlarged to gigabytes.
    return picture.resize((width, height), Image.Resampling.BICUBIC, (left * across, top * down, right, bottom))


class FileLabels(Sequence[Tensor]):
    """Label maps in files, read when they are looked at, so that a large data set fits into memory.

    The first 128 MB of maps are kept, which spares small data sets the reading in every epoch.

    Args:
        paths: one file per picture.
        read: file -> map [H, W] (or [C, H, W]).
        setting: what `read` depends on beside the file, in words; part of the fingerprint.
    """

    def __init__(self, paths: Sequence[Path], read: Callable[[Path], Tensor], setting: str = "") -> None:
        self.paths = list(paths)
        self.read = read
        self.setting = setting
        self._kept: dict[int, tuple[FileState, Tensor]] = {}
        self._kept_bytes = 0

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        """One map, or the maps of a slice."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        state = FileState.of(self.paths[index].stat())
        if index in self._kept:
            known, found = self._kept[index]
            if known == state:
                return found
            del self._kept[index]
            self._kept_bytes -= found.nbytes
        found = self.read(self.paths[index])
        if self._kept_bytes < KEPT_BYTES and state.settled():
            self._kept[index] = (state, found)
            self._kept_bytes += found.nbytes
        return found

    def fingerprint(self) -> str:
        """See `Pictures.fingerprint`: of names, sizes in bytes and the setting."""
        return files_fingerprint(self.paths, self.setting)

    def contents(self) -> np.ndarray:
        """See `HasContents.contents`."""
        return file_contents(self.paths)


@dataclass(frozen=True)
class LabelledPictures:
    """Pictures with one label each: int64 [N], -1 for a picture that the task leaves out."""

    pictures: Pictures
    labels: Tensor

    def __post_init__(self) -> None:
        if len(self.pictures) != len(self.labels):
            raise ValueError(f"{len(self.pictures)} pictures but {len(self.labels)} labels")


@dataclass(frozen=True)
class ClassificationData:
    """A training and a validation split with one set of classes."""

    train: LabelledPictures
    val: LabelledPictures
    classes: list[str]


@dataclass(frozen=True)
class DensePictures:
    """Pictures with a label map [H, W] each, at the label's own size, which may differ from picture to picture."""

    pictures: Pictures
    labels: LabelMaps

    def __post_init__(self) -> None:
        if len(self.pictures) != len(self.labels):
            raise ValueError(f"{len(self.pictures)} pictures but {len(self.labels)} label maps")


@dataclass(frozen=True)
class SegmentationData:
    """Label maps hold integers: a class in [0, classes) or `ignore`."""

    train: DensePictures
    val: DensePictures
    classes: int
    ignore: int = 255


@dataclass(frozen=True)
class DepthData:
    """Label maps hold float32 metres; 0 where there is no measurement. The bins of the probe span [low, high].

    `train_box` is the part of each training picture, (left, top, right, bottom) in pixels, that augmented views are cut
    from: NYUv2's pictures have a white border. None is all of it.
    """

    train: DensePictures
    val: DensePictures
    low: float = 1e-3
    high: float = 10.0
    train_box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class NormalsData:
    """Label maps hold float32 [3, H, W] unit normals in the camera frame (x right, y down, z forward).

    Zeros where there is no measurement.
    """

    train: DensePictures
    val: DensePictures


@dataclass(frozen=True)
class RetrievalData:
    """Pictures with one or more captions each."""

    pictures: Pictures
    captions: list[list[str]]

    def __post_init__(self) -> None:
        if len(self.pictures) != len(self.captions) or not all(self.captions):
            raise ValueError(f"{len(self.pictures)} pictures, captions for {sum(map(bool, self.captions))}")


@dataclass(frozen=True)
class PointPair:
    """True correspondences between two pictures.

    Attributes:
        source, target: index of the picture in `MatchingData.sources` and `.targets`.
        source_points, target_points: [K, 2], (x, y) in pixels of the two pictures.
        source_size, target_size: (height, width) of the pictures in those pixels.
        reach: the length in target pixels of which a share (PCK's alpha) is allowed as error; the longer side of the
            target picture, or of the object's box.
        group: category, for averages per category; empty if there are none.
    """

    source: int
    target: int
    source_points: Tensor
    target_points: Tensor
    source_size: tuple[int, int]
    target_size: tuple[int, int]
    reach: float
    group: str = ""


@dataclass(frozen=True)
class MatchingData:
    """Pairs of pictures with true correspondences."""

    sources: Pictures
    targets: Pictures
    pairs: Sequence[PointPair]


def tensor_fingerprint(values: Tensor) -> str:
    """Hash of a tensor's type, shape and bytes."""
    digest = hashlib.blake2b(f"{values.dtype} {tuple(values.shape)}".encode(), digest_size=16)
    digest.update(values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
