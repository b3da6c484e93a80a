"""The interface of all sources of pictures."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from PIL import Image


@runtime_checkable
class PictureSource(Protocol):
    """Pictures by number.

    Attributes:
        name: what reports call it, usually the spec it was opened from.
        classes: names of the classes in the order of the labels, None where there are no names.
    """

    name: str
    classes: list[str] | None

    def __len__(self) -> int:
        """How many pictures there are, readable or not."""
        ...

    def read(self, index: int) -> Image.Image:
        """Picture `index` as 8-bit RGB.

        Raises:
            PictureError: it is broken.
        """
        ...

    def picture_name(self, index: int) -> str:
        """What errors and reports call picture `index`."""
        ...

    def label(self, index: int) -> int | None:
        """The class of picture `index`, None if it has none."""
        ...

    def fingerprint(self) -> str:
        """A hash of names and sizes: equal as long as it is the same data, wherever it lies.

        A source of files should also have `eyespot.data.sources.fingerprint.HasContents.contents`, which tells changed
        pictures of the same size.
        """
        ...
