"""Pictures and their labels at another size, each kind of label in its own way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot.data.labelled.edges import thinned
from eyespot.data.labelled.samples import MultiTaskData, MultiTaskSample
from eyespot.data.sources.fingerprint import contents_of, fingerprint_of
from eyespot.dense_tasks import IGNORE, DenseTask, Kind


def resized_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 [3, H, W] at (height, width), bilinear, antialiased where it shrinks."""
    if tuple(image.shape[-2:]) == size:
        return image
    return F.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]


def nearest_pixels(length: int, wanted: int) -> Tensor:
    """int64 [wanted]: of a side of `length` pixels, those whose centres are nearest to the centres of `wanted` ones."""
    return ((torch.arange(wanted, dtype=torch.float64) + 0.5) * length / wanted).long().clamp(max=length - 1)


def resized_label(label: Tensor, kind: Kind, size: tuple[int, int]) -> Tensor:
    """A label map [H, W] or [C, H, W] at (height, width).

    Nearest pixels; depths keep their values. But thin lines and points must survive shrinking, so of boundaries and
    key points the largest value is taken; boundaries are then thinned to one pixel again.
    """
    if tuple(label.shape[-2:]) == size:
        return label
    if kind == "boundary":
        known = _largest((label != IGNORE).float(), size) > 0
        lines = thinned(_largest((label == 1).float(), size) > 0)
        return lines.to(torch.uint8).masked_fill(~known, IGNORE)
    if kind == "keypoints":
        return _largest(label, size)
    rows, columns = (nearest_pixels(old, new) for old, new in zip(label.shape[-2:], size, strict=True))
    return label[..., rows, :][..., columns]


def _largest(values: Tensor, size: tuple[int, int]) -> Tensor:
    return F.adaptive_max_pool2d(values.view(1, -1, *values.shape[-2:]), size).view(*values.shape[:-2], *size)


@dataclass(frozen=True)
class ResizedData:
    """Multi-task data with every picture and its labels brought to one size on reading.

    Attributes:
        data: at their own sizes.
        size: (height, width) in pixels. Pictures of another shape are squeezed.
    """

    data: MultiTaskData
    size: tuple[int, int]

    @property
    def name(self) -> str:
        """See `MultiTaskData`."""
        return self.data.name

    @property
    def tasks(self) -> dict[str, DenseTask]:
        """See `MultiTaskData`."""
        return self.data.tasks

    def __len__(self) -> int:
        return len(self.data)

    def picture_name(self, index: int) -> str:
        """See `MultiTaskData.picture_name`."""
        return self.data.picture_name(index)

    def read(self, index: int) -> MultiTaskSample:
        """See `MultiTaskData.read`."""
        sample = self.data.read(index)
        maps = {task: resized_label(label, self.tasks[task].kind, self.size) for task, label in sample.maps.items()}
        return MultiTaskSample(resized_image(sample.image, self.size), maps)

    def fingerprint(self) -> str:
        """See `MultiTaskData.fingerprint`."""
        return fingerprint_of([self.data.fingerprint(), f"{self.size[0]}x{self.size[1]}"])

    def contents(self) -> np.ndarray:
        """See `HasContents.contents`."""
        return contents_of(self.data)
