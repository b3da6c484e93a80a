"""What the quick dense probes are fitted on: cells of patch maps, each with what the labels of its pixels say.

A linear loss over the pixels of a cell needs no more than their mean label, or the shares of the classes among them, so
every pixel of a picture counts and none has to be drawn. Of large data a fixed number of pictures and cells is taken,
so that time and memory stay bounded whatever the data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from eyespot.data.labelled.base import LabelMaps
from eyespot.data.loading.sampling import spread
from eyespot.randomness import torch_generator

PICTURES = 1 << 11  # training pictures that are looked at, at most
CELLS = 1 << 15  # of them all together, at most
ENOUGH = 25  # pictures that are held out to choose a penalty, see `axes.held_out_parts`

Grid = tuple[int, int]
Summary = Callable[[Tensor, Grid], tuple[Tensor, Tensor]]
"""(label map, (h, w)) -> what the pixels of each cell say, [h * w, K], and how many they are, [h * w], both float64."""


@dataclass(frozen=True)
class Cells:
    """Labelled cells.

    Attributes:
        features: float32 [n, D].
        targets: float32 [n, K], means or shares.
        weights: float32 [n], above 0: the share of a cell's pixels that is labelled.
        pictures: int64 [n], which picture each is of, ascending.
    """

    features: Tensor
    targets: Tensor
    weights: Tensor
    pictures: Tensor


def labelled_cells(patches: Tensor, labels: LabelMaps, summary: Summary, seed: int) -> Cells:
    """The cells of training pictures.

    Args:
        patches: [N, D, h, w], any floating type; may be memory-mapped.
        labels: N maps at their own sizes.
        summary: see `Summary`.
        seed: names which cells are taken where there are more than enough.

    Raises:
        ValueError: no pixel is labelled.
    """
    grid = (patches.shape[2], patches.shape[3])
    chosen = spread(len(patches), PICTURES)
    most = max(1, CELLS // len(chosen))
    features = torch.empty(len(chosen) * min(most, grid[0] * grid[1]), patches.shape[1])  # filled from the beginning
    filled = 0
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for index in chosen:
        label = labels[index]
        targets, counts = summary(label, grid)
        cells = counts.nonzero()[:, 0]
        if len(cells) > most:
            order = torch.randperm(len(cells), generator=torch_generator(seed, "cells of a probe", index))
            cells = cells[order[:most]].sort().values
        share = counts[cells] * (len(counts) / label.shape[-2:].numel())
        features[filled : filled + len(cells)] = patches[index].flatten(1)[:, cells].T
        filled += len(cells)
        parts.append((targets[cells].float(), share.float(), torch.full((len(cells),), index)))
    targets, weights, pictures = (torch.cat(part) for part in zip(*parts, strict=True))
    if len(pictures) == 0:
        raise ValueError("no pixel of the training pictures is labelled, so no probe can be fitted")
    return Cells(features[:filled], targets, weights, pictures)


def cell_means(values: Tensor, measured: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Means of values [K, H, W] over the measured pixels [H, W] of each cell, and their numbers; see `Summary`."""
    cells = _cell_of_pixel((measured.shape[0], measured.shape[1]), grid)[measured]
    size = grid[0] * grid[1]
    counts = torch.bincount(cells, minlength=size).double()
    sums = [torch.bincount(cells, weights=value[measured].double(), minlength=size) for value in values]
    return torch.stack(sums, dim=1) / counts.clamp(min=1)[:, None], counts


def class_shares(mask: Tensor, classes: int, ignore: int, grid: Grid) -> tuple[Tensor, Tensor]:
    """Shares of the classes among the labelled pixels of each cell of a mask [H, W]; see `Summary`."""
    known = mask != ignore
    cells = _cell_of_pixel((mask.shape[0], mask.shape[1]), grid)[known]
    size = grid[0] * grid[1]
    shares = torch.bincount(cells * classes + mask[known].long(), minlength=size * classes).view(size, classes).double()
    counts = shares.sum(dim=1)
    return shares / counts.clamp(min=1)[:, None], counts


@lru_cache(maxsize=8)
def _cell_of_pixel(size: tuple[int, int], grid: Grid) -> Tensor:
    """The number of the cell in which the centre of each pixel lies, int64 [H, W]."""
    rows, columns = (
        ((torch.arange(side, dtype=torch.float64) + 0.5) * cells / side).long()
        for side, cells in zip(size, grid, strict=True)
    )
    return rows[:, None] * grid[1] + columns
