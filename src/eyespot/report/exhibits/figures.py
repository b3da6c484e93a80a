"""Figures of the report: drawings, grids of pictures and strips of pictures that stay readable on a phone."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure as Drawing
from PIL import Image
from torch import Tensor

INK = "#010203"
"""Colour of text and axes in drawings; `svg_of` turns it into the colour of the page's text, light or dark."""

PICTURE_SIDE = 336  # pixels; twice the width at which a page shows most pictures
_MOST_FLAT_COLOURS = 4096  # the cells of a 64 x 64 map


@dataclass(frozen=True)
class Figure:
    """One drawing with its words.

    Attributes:
        title: a few words, shown above.
        caption: what one sees and how it was made, shown below.
        image: PNG bytes, or the text of an SVG as `svg_of` makes it. SVG text goes into the page as it is, so it must
            come from a trusted drawing library.
        alt: what a reader who cannot see the figure needs to know; title and caption if empty.
    """

    title: str
    caption: str
    image: bytes | str
    alt: str = ""

    @property
    def description(self) -> str:
        """The alternative text."""
        return self.alt or f"{self.title}. {self.caption}".strip()

    @property
    def is_svg(self) -> bool:
        """Whether `image` is SVG text."""
        return isinstance(self.image, str)

    @property
    def source(self) -> str:
        """`image` as a data URI (PNG) or as inline SVG."""
        return self.image if isinstance(self.image, str) else data_uri(self.image, "png")


@dataclass(frozen=True)
class Scale:
    """What the colours of a figure mean: from `low` to `high` through `colours`, as CSS writes them."""

    low: str
    high: str
    colours: Sequence[str]


@dataclass(frozen=True)
class PictureGrid:
    """Pictures side by side: one row per scene, one column per way of looking at it.

    Attributes:
        title: a few words, shown above.
        caption: what one sees and how it was made, shown below.
        columns: name -> uint8 [B, 3, H, W], or B pictures of several sizes; the same B in all columns. The first column
            stays in view when the reader scrolls sideways.
        notes: name -> B short texts, shown below the pictures of a column; columns without any need no entry.
        scale: what the colours mean, if they have one meaning throughout.
    """

    title: str
    caption: str
    columns: Mapping[str, Tensor | Sequence[Tensor]]
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    scale: Scale | None = None

    def __post_init__(self) -> None:
        lengths = {name: len(pictures) for name, pictures in self.columns.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"every column of a picture grid needs the same number of pictures; got {lengths}")
        for name, texts in self.notes.items():
            if lengths.get(name) != len(texts):
                raise ValueError(f"{len(texts)} notes for column {name!r} with {lengths.get(name, 0)} pictures")

    def rows(self, side: int = PICTURE_SIDE) -> list[list[tuple[str, str, str]]]:
        """Per row, per column: alternative text, data URI, note. Larger pictures are shrunk to `side` pixels."""
        count = len(next(iter(self.columns.values())))
        return [
            [self._cell(name, pictures[row], row, side) for name, pictures in self.columns.items()]
            for row in range(count)
        ]

    def _cell(self, name: str, picture: Tensor, row: int, side: int) -> tuple[str, str, str]:
        note = self.notes[name][row] if name in self.notes else ""
        alt = f"{name}, scene {row + 1}" + (f": {note}" if note else "")
        return alt, picture_uri(picture, side), note


@dataclass(frozen=True)
class Strip:
    """Pictures in one line.

    Attributes:
        label: whose they are.
        pictures: each uint8 [3, H, W].
        alts: a text per picture, for readers who cannot see it.
        right: per picture, whether it is marked as right, as wrong, or (None) not at all; empty marks none.
        note: a few words beside the label.
    """

    label: str
    pictures: Sequence[Tensor]
    alts: Sequence[str]
    right: Sequence[bool | None] = ()
    note: str = ""

    def cells(self, side: int) -> list[tuple[str, str, bool | None]]:
        """Per picture: alternative text, data URI, mark."""
        marks = self.right or [None] * len(self.pictures)
        uris = [picture_uri(picture, side) for picture in self.pictures]
        return list(zip(self.alts, uris, marks, strict=True))


@dataclass(frozen=True)
class StripGroup:
    """Strips about one thing: `heading` names it and `picture`, uint8 [3, H, W], shows it."""

    heading: str
    strips: Sequence[Strip]
    picture: Tensor | None = None

    def head_uri(self, side: int) -> str:
        """The picture as a data URI."""
        assert self.picture is not None
        return picture_uri(self.picture, side)


@dataclass(frozen=True)
class PictureStrips:
    """Groups of strips, one below the other.

    Attributes:
        title: a few words, shown above.
        caption: what one sees and how it was made, shown below.
        groups: see `StripGroup`.
        thumbnails: whether each strip is a line of small pictures, not one wide picture.
    """

    title: str
    caption: str
    groups: Sequence[StripGroup]
    thumbnails: bool = True


AnyFigure = Figure | PictureGrid | PictureStrips


def picture_uri(picture: Tensor, side: int = PICTURE_SIDE) -> str:
    """A picture, uint8 [3, H, W], as a data URI: PNG if it is of flat cells, else WebP.

    Args:
        picture: see above.
        side: the longer side in pixels to which it is shrunk if it is larger.

    Raises:
        ValueError: another type or shape.
    """
    if picture.dtype != torch.uint8 or picture.ndim != 3:
        raise ValueError(f"expected a uint8 picture [3, H, W], got {picture.dtype} {tuple(picture.shape)}")
    image = Image.fromarray(picture.permute(1, 2, 0).contiguous().cpu().numpy())
    is_flat = image.getcolors(_MOST_FLAT_COLOURS) is not None
    image.thumbnail((side, side), Image.Resampling.NEAREST if is_flat else Image.Resampling.LANCZOS)
    photo = _encoded(image, "webp", quality=82)
    exact = _encoded(image, "png", optimize=True) if is_flat else None
    if exact is not None and len(exact) <= 2 * len(photo):
        return data_uri(exact, "png")
    return data_uri(photo, "webp")


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def data_uri(content: bytes, kind: str) -> str:
    """Image bytes as a `data:` address; `kind` is "png" or "webp"."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def as_bytes(pictures: Tensor) -> Tensor:
    """Pictures in [0, 1] as uint8."""
    return (pictures.clamp(0, 1) * 255).round().to(torch.uint8)


def shrunk(picture: Tensor, side: int = PICTURE_SIDE) -> Tensor:
    """A uint8 picture [3, H, W] whose longer side is at most `side` pixels: bilinear, antialiased."""
    height, width = picture.shape[1:]
    factor = side / max(height, width)
    if factor >= 1:
        return picture
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    return F.interpolate(picture[None], size=size, mode="bilinear", antialias=True)[0]


def svg_of(drawing: Drawing) -> str:
    """A matplotlib figure as SVG to stand inside an HTML page.

    It has no prolog and no metadata, its text is text, and its ink follows the page's text colour. The same drawing
    gives the same SVG.
    """
    buffer = io.StringIO()
    drawing.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # group names repeat from drawing to drawing; nothing refers to them
    svg = re.sub(r'^<svg([^>]*?) (?:width|height)="[^"]*"([^>]*?) (?:width|height)="[^"]*"', r"<svg\1\2", svg)
    return svg.replace(INK, "currentColor").strip()
