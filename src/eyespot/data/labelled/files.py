"""Multi-task data whose pictures and labels are files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eyespot.contents import file_contents
from eyespot.data.labelled.layout import Layout
from eyespot.data.labelled.samples import MultiTaskSample
from eyespot.data.sources.decode import PictureError, decode_picture
from eyespot.data.sources.fingerprint import files_fingerprint
from eyespot.dense_tasks import DenseTask
from eyespot.files import reason_of

MapReader = Callable[[], Tensor]
"""Gives one map of one picture."""


@dataclass(frozen=True)
class FileData(ABC):
    """Multi-task data whose pictures and labels are files; a subclass knows one layout.

    The name of the subclass is part of the fingerprint: whoever renames it makes other data of the same files.

    Attributes:
        name: see `MultiTaskData`.
        folder: of the data set.
        tasks: those that are read.
        pictures: the picture files.
    """

    name: str
    folder: Path
    tasks: dict[str, DenseTask]
    pictures: list[Path]

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """What errors name."""

    @abstractmethod
    def files(self, task: str, picture: Path) -> list[Path]:
        """The files that a picture's map for a task is read from."""

    @abstractmethod
    def maps(self, picture: Path) -> dict[str, MapReader]:
        """What gives each task's map of a picture, as `eyespot.dense_tasks` writes it.

        What several tasks need is read by one cached function (`functools.cache`), which they all call: so every file
        is decoded once per picture, and none that is not asked for. Any exception of theirs means a broken file.
        """

    def __len__(self) -> int:
        return len(self.pictures)

    def picture_name(self, index: int) -> str:
        """The path of picture `index`."""
        return str(self.pictures[index])

    def read(self, index: int) -> MultiTaskSample:
        """See `MultiTaskData.read`; a label that is not of its picture's size is broken."""
        picture = self.pictures[index]
        image = torch.from_numpy(np.array(decode_picture(picture))).permute(2, 0, 1).contiguous()
        readers = self.maps(picture)
        maps = {task: _read(readers[task], task, picture) for task in self.tasks}
        for task, label in maps.items():
            if label.shape[-2:] != image.shape[-2:]:
                raise PictureError(
                    str(picture),
                    f"its label for {task} is {label.shape[-1]}x{label.shape[-2]}, the picture "
                    f"{image.shape[-1]}x{image.shape[-2]}; they must be of one size",
                )
        return MultiTaskSample(image, maps)

    def check(self) -> None:
        """Looks whether all files are there.

        Raises:
            LayoutError: one is not.
        """
        for file in self._files():
            self.layout.file(file)

    def fingerprint(self) -> str:
        """See `MultiTaskData.fingerprint`: of the names and sizes of all files and of the tasks."""
        return files_fingerprint(self._files(), f"{type(self).__name__} {self.setting()} {' '.join(self.tasks)}")

    def contents(self) -> np.ndarray:
        """See `HasContents.contents`: of the pictures and then of the files of their labels."""
        return file_contents(list(self._files()))

    def setting(self) -> str:
        """What the maps depend on beside the files, in words."""
        return ""

    def _files(self) -> Iterable[Path]:
        labels = (file for picture in self.pictures for task in self.tasks for file in self.files(task, picture))
        return dict.fromkeys([*self.pictures, *labels])


def _read(reader: MapReader, task: str, picture: Path) -> Tensor:
    try:
        return reader()
    except MemoryError:
        raise
    except Exception as error:  # on broken files the readers of PNG, NPY and MAT raise nearly anything
        raise PictureError(str(picture), f"its label for {task} cannot be read: {reason_of(error)}") from error
