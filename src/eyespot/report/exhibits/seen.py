"""What encoders see in the same photographs: PCA pictures, PCA pictures at several sizes, maps of token norms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from eyespot.evaluate.extraction import FeatureBank
from eyespot.evaluate.protocols.feature_geometry import norm_outliers
from eyespot.report.drawing.colours import in_colours, stops
from eyespot.report.exhibits.figures import PICTURE_SIDE, AnyFigure, PictureGrid, Scale, as_bytes
from eyespot.report.exhibits.gallery import Findings
from eyespot.report.exhibits.pca import pca_pictures
from eyespot.report.pages.sheet import patch_map

_MOST_NORM = 3.0  # medians; where the colours of norm maps end
_LARGEST_SIZE = 512  # pixels; beyond, a transformer takes long and shows little more


def sizes_around(size: int) -> tuple[int, ...]:
    """Half of a size, and twice as much unless that exceeds 512 pixels."""
    return (size // 2, *((2 * size,) if 2 * size <= _LARGEST_SIZE else ()))


@dataclass(frozen=True)
class Seen:
    """PCA pictures and token norms of the same photographs.

    Attributes:
        pictures: [B, 3, H, W] in [0, 1].
        size: shorter side at which encoders see them, rounded to their stride; None is the pictures' own.
        more_sizes: further ones for encoders that take any.
        align_to: label of the encoder whose colours the others follow; the last if None.
    """

    pictures: Tensor
    size: int | None = None
    more_sizes: tuple[int, ...] = ()
    align_to: str | None = None

    name: ClassVar[str] = "seen"
    setting: ClassVar[None] = None

    @property
    def data(self) -> Tensor:
        """The pictures."""
        return self.pictures

    def look(self, bank: FeatureBank) -> list[Tensor]:
        """Patches float32 [B, D, h, w] at `size`, then at `more_sizes` if the encoder takes any size."""
        encoder = bank.encoder
        more = self.more_sizes if encoder.native_size is None else ()
        return [patch_map(encoder, self.pictures, size) for size in (self.size, *more)]

    def draw(self, findings: Findings) -> list[AnyFigure]:
        """A grid of PCA colours, one at several sizes if any encoder takes them, and one of token norms."""
        guide = self.align_to if self.align_to is not None and self.align_to in findings else list(findings)[-1]
        reference = findings[guide][0]
        figures: list[AnyFigure] = [self._pca(findings, reference, guide)]
        if any(len(maps) > 1 for maps in findings.values()):
            figures.append(self._at_sizes(findings, reference))
        return [*figures, self._norms(findings)]

    @property
    def _shape(self) -> tuple[int, int]:
        """(height, width) on the page."""
        height, width = self.pictures.shape[2:]
        factor = min(1.0, PICTURE_SIDE / max(height, width))
        return max(1, round(height * factor)), max(1, round(width * factor))

    def _pca(self, findings: Findings, reference: Tensor, guide: str) -> PictureGrid:
        columns = {"picture": as_bytes(self.pictures)} | {
            label: pca_pictures(maps[0], self._shape, align_to=None if label == guide else reference)
            for label, maps in findings.items()
        }
        return PictureGrid(
            "What each encoder sees",
            "Patch features of the same pictures, reduced to three principal components per encoder and shown as "
            "colours. Colours are free up to a rotation; here they are turned towards those of "
            f"{guide}. Regions of one colour are alike to that encoder; each cell is one patch.",
            columns,
        )

    def _at_sizes(self, findings: Findings, reference: Tensor) -> PictureGrid:
        short = min(self.pictures.shape[2:])
        sizes = [self.size or short, *self.more_sizes]
        order = sorted(range(len(sizes)), key=lambda place: sizes[place])
        columns = {"picture": as_bytes(self.pictures)} | {
            f"{label} at {sizes[place]} px": pca_pictures(
                maps[place], self._shape, align_to=reference, basis=maps[0] if place else None
            )
            for label, maps in findings.items()
            if len(maps) > 1
            for place in order
        }
        return PictureGrid(
            "The same at several input sizes",
            f"One PCA per encoder, fitted at {sizes[0]} px: equal colours are equal features whatever the size. An "
            "encoder that does not care about the size shows the same picture, in finer cells.",
            columns,
        )

    def _norms(self, findings: Findings) -> PictureGrid:
        columns: dict[str, Tensor | Sequence[Tensor]] = {"picture": as_bytes(self.pictures)}
        notes = {}
        for label, maps in findings.items():
            norms = maps[0].norm(dim=1)
            share = norms / norms.median().clamp(min=1e-12)
            colours = in_colours(share, 0, _MOST_NORM, "magma").transpose(0, 1)
            cells = torch.nn.functional.interpolate(colours, self._shape, mode="nearest-exact")
            columns[label] = as_bytes(cells)
            notes[label] = [_norms_in_words(one) for one in norms]
        return PictureGrid(
            "Length of the patch tokens",
            "The norm of every patch over the median of that encoder's. A few bright cells on plain background are "
            "outliers, tokens that an encoder uses as scratch space (Darcet et al. 2023). Below: the largest, and how "
            "many outliers, which exceed the median of their picture by more than itself and by 6 robust deviations.",
            columns,
            notes,
            Scale("0", f"{_MOST_NORM:g} times the median", stops("magma")),
        )


def _norms_in_words(norms: Tensor) -> str:
    """The largest of a picture's norms [h, w] over their median, and the number of outliers."""
    share, ratio = norm_outliers(norms.flatten())
    if not math.isfinite(ratio):
        return "median 0"
    outliers = round(share * norms.numel())
    return f"max {ratio:.1f}×" + (f", {outliers} outlier{'s' if outliers > 1 else ''}" if outliers else "")
