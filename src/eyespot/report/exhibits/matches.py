"""Point matches between two pictures, drawn as lines from the one to the other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from eyespot.data.labelled.base import MatchingData, PointPair
from eyespot.data.loading.sampling import spread
from eyespot.evaluate.extraction import FeatureBank
from eyespot.evaluate.protocols.correspondence import correct_points, match
from eyespot.report.exhibits.figures import AnyFigure, PictureStrips, Strip, StripGroup
from eyespot.report.exhibits.gallery import Findings

ALPHA = 0.1
_HEIGHT, _GAP = 240, 8  # pixels of the pair's picture
_SMOOTH = 2  # drawn so many times larger, then shrunk
_RIGHT, _WRONG, _EDGE = (0, 95, 170), (205, 75, 0), (255, 255, 255)
_DASH = 9.0


@dataclass(frozen=True)
class Matches:
    """Where each encoder finds the points of one picture in another, by `correspondence.match`.

    Attributes:
        data: pairs of pictures with true correspondences.
        pairs: how many pairs, spread evenly over the data.
        lines: how many of a pair's points are drawn.
    """

    data: MatchingData
    pairs: int = 2
    lines: int = 14

    name: ClassVar[str] = "correspondence"
    setting: ClassVar[None] = None

    def look(self, bank: FeatureBank) -> list[Tensor]:
        """Per shown pair the places found for all its points, [K, 2] pixels of the target."""
        sources, targets = bank.features(self.data.sources).patches, bank.features(self.data.targets).patches
        return [
            match(sources[pair.source], targets[pair.target], pair.source_points, pair.source_size, pair.target_size)
            for pair in self._chosen
        ]

    def draw(self, findings: Findings) -> list[AnyFigure]:
        """One group per pair: the true matches, then each encoder's."""
        if not self._chosen:
            return []
        groups = []
        for number, pair in enumerate(self._chosen):
            canvas = _side_by_side(self._photo(pair, 0), self._photo(pair, 1))
            truth = self._strip("true places", canvas, pair, pair.target_points.float())
            strips = [self._strip(label, canvas, pair, found[number]) for label, found in findings.items()]
            groups.append(StripGroup(f"Pair {number + 1}", [truth, *strips]))
        caption = (
            "Points of the left picture and the places in the right one whose patches are most alike. Full lines with "
            f"a dot end within {ALPHA:.0%} of the reference length of the true place (PCK@{ALPHA:g}), dashed lines "
            f"with a cross do not. {self.lines} points per pair are drawn, all count."
        )
        return [PictureStrips("Point matching", caption, groups, thumbnails=False)]

    @cached_property
    def _chosen(self) -> list[PointPair]:
        return [self.data.pairs[index] for index in spread(len(self.data.pairs), self.pairs)]

    def _photo(self, pair: PointPair, side: int) -> Tensor:
        return self.data.targets.original(pair.target) if side else self.data.sources.original(pair.source)

    def _strip(self, label: str, canvas: tuple[Image.Image, int], pair: PointPair, found: Tensor) -> Strip:
        right = correct_points([found], [pair.target_points], [pair.reach], ALPHA)[0]
        shown = spread(len(found), self.lines)
        picture = _drawn(canvas, pair, found[shown], right[shown])
        note = f"{int(right.sum())} of {len(right)} points right"
        return Strip(label, [picture], [f"{label}: {note}"], note=note if label != "true places" else "")


def _side_by_side(left: Tensor, right: Tensor) -> tuple[Image.Image, int]:
    """Both pictures at one height, and where the right one begins."""
    one, other = (_of_height(picture) for picture in (left, right))
    begin = one.width + _GAP
    canvas = Image.new("RGB", (begin + other.width, _HEIGHT), (127, 127, 127))
    canvas.paste(one, (0, 0))
    canvas.paste(other, (begin, 0))
    return canvas, begin


def _of_height(picture: Tensor) -> Image.Image:
    image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
    return image.resize((max(1, round(image.width * _HEIGHT / image.height)), _HEIGHT), Image.Resampling.LANCZOS)


def _drawn(canvas: tuple[Image.Image, int], pair: PointPair, found: Tensor, right: Tensor) -> Tensor:
    """The matches over a pale copy of the canvas, uint8 [3, H, W]."""
    picture, begin = canvas
    pale = Image.blend(picture.convert("L").convert("RGB"), Image.new("RGB", picture.size, (255, 255, 255)), 0.35)
    large = pale.resize((picture.width * _SMOOTH, _HEIGHT * _SMOOTH))
    brush = ImageDraw.Draw(large)
    shown = spread(len(pair.source_points), len(found))
    starts = _on_canvas(pair.source_points[shown], pair.source_size, 0, begin - _GAP)
    ends = _on_canvas(found, pair.target_size, begin, picture.width - begin)
    for start, end, hit in zip(starts, ends, right.tolist(), strict=True):
        _match_line(brush, start, end, bool(hit))
    smooth = large.resize(picture.size, Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(smooth)).permute(2, 0, 1)


def _on_canvas(points: Tensor, size: tuple[int, int], begin: int, width: int) -> list[tuple[float, float]]:
    """Pixels (x, y) of a picture of `size` on the enlarged canvas."""
    scale = torch.tensor([width / size[1], _HEIGHT / size[0]])
    return [(float(x), float(y)) for x, y in (points.float() * scale + torch.tensor([float(begin), 0.0])) * _SMOOTH]


def _match_line(brush: ImageDraw.ImageDraw, start: tuple[float, float], end: tuple[float, float], hit: bool) -> None:
    colour = _RIGHT if hit else _WRONG
    for shade, width in ((_EDGE, 4 * _SMOOTH), (colour, 2 * _SMOOTH)):
        for piece in [(start, end)] if hit else _dashes(start, end):
            brush.line(piece, fill=shade, width=width)
    _dot(brush, start, 4 * _SMOOTH, colour)
    if hit:
        _dot(brush, end, 4 * _SMOOTH, colour)
        return
    reach = 5 * _SMOOTH
    for shade, width in ((_EDGE, 5 * _SMOOTH), (colour, 2 * _SMOOTH + 1)):
        for sign in (1, -1):
            corners = [(end[0] - reach, end[1] - sign * reach), (end[0] + reach, end[1] + sign * reach)]
            brush.line(corners, fill=shade, width=width)


def _dot(brush: ImageDraw.ImageDraw, place: tuple[float, float], radius: float, colour: tuple[int, int, int]) -> None:
    box = (place[0] - radius, place[1] - radius, place[0] + radius, place[1] + radius)
    brush.ellipse(box, fill=colour, outline=_EDGE, width=_SMOOTH)


def _dashes(start: tuple[float, float], end: tuple[float, float]) -> list[list[tuple[float, float]]]:
    """Pieces of a line, as long as the gaps between them."""
    (x, y), (right, below) = start, end
    length = max(1e-6, float(np.hypot(right - x, below - y)))
    step = _DASH * _SMOOTH / length
    pieces = []
    for begin in np.arange(0, 1, 2 * step):
        stop = min(1.0, begin + step)
        pieces.append([(x + part * (right - x), y + part * (below - y)) for part in (float(begin), float(stop))])
    return pieces
