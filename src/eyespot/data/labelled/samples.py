"""One picture with the label maps of several tasks, and what sets of them have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from eyespot.data.labelled.base import TensorPictures
from eyespot.data.sources.fingerprint import contents_of
from eyespot.dense_tasks import DenseTask

Split = Literal["train", "val"]


@dataclass(frozen=True)
class MultiTaskSample:
    """A picture and the maps of its tasks.

    Attributes:
        image: uint8 [3, H, W], RGB.
        maps: by name of the task, [H, W] or [C, H, W], as `eyespot.dense_tasks` writes them.
    """

    image: Tensor
    maps: dict[str, Tensor]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        height, width = self.image.shape[-2:]
        return height, width


class MultiTaskData(Protocol):
    """Pictures with the labels of one or more tasks, by number."""

    @property
    def name(self) -> str:
        """What reports call the data, usually the spec they were opened from."""
        ...

    @property
    def tasks(self) -> dict[str, DenseTask]:
        """What every picture is labelled for."""
        ...

    def __len__(self) -> int:
        """How many pictures there are, readable or not."""
        ...

    def read(self, index: int) -> MultiTaskSample:
        """Picture `index` with its maps.

        Raises:
            PictureError: it or one of its maps is broken.
        """
        ...

    def picture_name(self, index: int) -> str:
        """What errors and reports call picture `index`."""
        ...

    def fingerprint(self) -> str:
        """A hash that tells whether these are the same pictures and labels, wherever they lie."""
        ...


class MultiTaskPictures:
    """The pictures of multi-task data alone, as `eyespot.data.labelled.base.Pictures`."""

    def __init__(self, data: MultiTaskData) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def read(self, start: int, stop: int, size: tuple[int, int]) -> Tensor:
        """See `Pictures.read`."""
        return torch.cat([TensorPictures(self.original(index)[None]).read(0, 1, size) for index in range(start, stop)])

    def original(self, index: int) -> Tensor:
        """See `Pictures.original`."""
        return self.data.read(index).image

    def fingerprint(self) -> str:
        """See `Pictures.fingerprint`."""
        return self.data.fingerprint()

    def contents(self) -> np.ndarray:
        """See `HasContents.contents`."""
        return contents_of(self.data)
