"""Figures of the report: one drawing, or a grid of pictures that stays readable on a phone."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure as Drawing
from PIL import Image
from torch import Tensor

INK = "#010203"
"""Colour of text and axes in drawings; `svg_of` turns it into the colour of the page's text, light or dark."""


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
class PictureGrid:
    """Pictures side by side: one row per scene, one column per way of looking at it.

    Attributes:
        title: a few words, shown above.
        caption: what one sees and how it was made, shown below.
        columns: name -> uint8 [B, 3, H, W], the same B in all columns; the first column stays in view when the reader
            scrolls sideways.
    """

    title: str
    caption: str
    columns: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        lengths = {name: len(pictures) for name, pictures in self.columns.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"every column of a picture grid needs the same number of pictures; got {lengths}")

    @property
    def rows(self) -> list[list[tuple[str, str]]]:
        """Per row, per column: (alternative text, data URI)."""
        cells = {name: [picture_uri(picture) for picture in pictures] for name, pictures in self.columns.items()}
        count = len(next(iter(cells.values())))
        return [[(f"{name}, scene {row + 1}", uris[row]) for name, uris in cells.items()] for row in range(count)]


def picture_uri(picture: Tensor) -> str:
    """A picture, uint8 [3, H, W], as a data URI: PNG or JPEG, whichever is smaller (flat cells or photos)."""
    if picture.dtype != torch.uint8 or picture.ndim != 3:
        raise ValueError(f"expected a uint8 picture [3, H, W], got {picture.dtype} {tuple(picture.shape)}")
    image = Image.fromarray(picture.permute(1, 2, 0).contiguous().cpu().numpy())
    encoded: dict[str, bytes] = {}
    for kind in ("png", "jpeg"):
        buffer = io.BytesIO()
        image.save(buffer, kind, optimize=True, quality=88)
        encoded[kind] = buffer.getvalue()
    kind = min(encoded, key=lambda kind: len(encoded[kind]))
    return data_uri(encoded[kind], kind)


def data_uri(content: bytes, kind: str) -> str:
    """Image bytes as a `data:` address; `kind` is "png" or "jpeg"."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


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
