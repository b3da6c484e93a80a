"""The texture bank: every surface of the toybox looks up one of its tiles, prefiltered for its distance."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot.data.toybox.cards import WORDS, draw_word
from eyespot.randomness import numpy_generator

SIDE = 256
LEVELS = 7

_NAMES = ["plain", "stripes", "checker", "dots", "tiles", "bricks", "planks", "clouds", "grain", "weave"]
PATTERN_TEXTURES = [_NAMES.index(name) for name in ("plain", "stripes", "checker", "dots")]
GROUNDS = [_NAMES.index(name) for name in ("checker", "tiles", "planks", "clouds", "grain", "weave")]
WALLS = [_NAMES.index(name) for name in ("stripes", "dots", "bricks", "clouds", "grain", "tiles")]


def word_texture(word: int) -> int:
    """The bank's layer that shows word number `word`."""
    return len(_NAMES) + word


class TextureBank:
    """Tiles with values in [0, 1] at `LEVELS` resolutions, each half the one before, in one flat table.

    The level of side s starts at tiles * s * s, which leaves room for all smaller ones before it.
    """

    def __init__(self) -> None:
        tiles = [_DRAW[name]() for name in _NAMES] + [draw_word(word, SIDE) for word in WORDS]
        level = torch.stack([tile.float() for tile in tiles])
        self.tiles = len(tiles)
        self.values = torch.zeros(2 * level.numel())
        for _ in range(LEVELS):
            self.values[level.numel() : 2 * level.numel()] = level.flatten()
            level = F.avg_pool2d(level[:, None], 2)[:, 0]

    def lookup(self, layer: Tensor, u: Tensor, v: Tensor, footprint: Tensor) -> Tensor:
        """The nearest texel at the level whose texels are about one footprint wide.

        Args:
            layer: Which tile, int32.
            u: Horizontal position in tiles, any value (tiles repeat).
            v: Vertical position in tiles, downwards.
            footprint: Width of a sample in tiles.

        Returns:
            Values in [0, 1], in the common shape of the arguments.
        """
        # The exponent bits of a float are the integer part of its logarithm.
        level = ((footprint * (2 * SIDE / 1.5)).view(torch.int32) >> 23) - 127
        size = SIDE >> level.clamp_(0, LEVELS - 1)
        column = torch.minimum(((u - u.floor()) * size).int(), size - 1)
        row = torch.minimum(((v - v.floor()) * size).int(), size - 1)
        index = ((layer + self.tiles) * size + row) * size + column
        return self.values.index_select(0, index.view(-1)).view(index.shape)


@cache
def texture_bank() -> TextureBank:
    """The bank, built on first use."""
    return TextureBank()


def _grid(cells: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cell numbers and positions in [0, 1) within the cell, as (column, row, x, y), for `cells` cells per side."""
    step = (torch.arange(SIDE) + 0.5) / SIDE * cells
    x, y = step[None].expand(SIDE, SIDE), step[:, None].expand(SIDE, SIDE)
    return x.floor(), y.floor(), x - x.floor(), y - y.floor()


def _stripes() -> Tensor:
    _, row, _, _ = _grid(2)
    return row


def _checker() -> Tensor:
    column, row, _, _ = _grid(2)
    return (column + row) % 2


def _dots() -> Tensor:
    # Two staggered dots per tile.
    step = (torch.arange(SIDE) + 0.5) / SIDE
    x, y = step[None], step[:, None]

    def disc(cx: float, cy: float) -> Tensor:
        dx, dy = (x - cx + 0.5) % 1 - 0.5, (y - cy + 0.5) % 1 - 0.5
        return ((0.23 - (dx * dx + dy * dy).sqrt()) * SIDE + 0.5).clamp(0, 1)

    return torch.maximum(disc(0.25, 0.25), disc(0.75, 0.75))


def _tiles() -> Tensor:
    column, row, x, y = _grid(4)
    tone = _per_cell("tiles", 4)[row.long(), column.long()]
    joint = (torch.minimum(x, y) < 0.07).float()
    return torch.where(joint > 0, torch.ones(()), tone * 0.35)


def _bricks() -> Tensor:
    _, row, _, y = _grid(8)
    step = (torch.arange(SIDE) + 0.5) / SIDE * 4
    x = step[None] + 0.5 * (row % 2)
    tone = _per_cell("bricks", 8)[row.long(), (x.floor() % 4).long()]
    joint = torch.minimum(x - x.floor(), y * 0.5) < 0.055
    return torch.where(joint, torch.ones(()), tone * 0.45)


def _planks() -> Tensor:
    column, _, x, _ = _grid(6)
    tone = _per_cell("planks", 6)[0][column.long()]
    fibre = _noise("fibre", (4, 64)) * 0.35
    return torch.where(x < 0.05, torch.ones(()), tone * 0.45 + fibre)


def _clouds() -> Tensor:
    tile = sum((_noise(f"clouds{cells}", (cells, cells)) / weight for cells, weight in ((4, 1), (8, 2), (16, 4))))
    assert isinstance(tile, Tensor)
    return (tile - tile.min()) / (tile.max() - tile.min())


def _grain() -> Tensor:
    tile = _noise("grain", (32, 32)) + 0.5 * _noise("grain2", (64, 64))
    return ((tile - tile.mean()) * 1.6 + 0.5).clamp(0, 1)


def _weave() -> Tensor:
    column, row, x, y = _grid(8)
    across = (column + row) % 2
    along = torch.where(across > 0, y, x)
    return (4 * along * (1 - along)) * torch.where(across > 0, torch.tensor(1.0), torch.tensor(0.55))


def _per_cell(name: str, cells: int) -> Tensor:
    return torch.from_numpy(numpy_generator("toybox texture", name).random((cells, cells))).float()


def _noise(name: str, cells: tuple[int, int]) -> Tensor:
    """Tileable smooth noise in [0, 1] from a lattice of (rows, columns) random numbers."""
    lattice = numpy_generator("toybox texture", name).random(cells)
    for axis in (0, 1):
        position = (np.arange(SIDE) + 0.5) / SIDE * cells[axis]
        low = position.astype(int)
        fraction = position - low
        weight = (fraction * fraction * (3 - 2 * fraction)).reshape((-1, 1) if axis == 0 else (1, -1))
        first, second = lattice.take(low, axis), lattice.take((low + 1) % cells[axis], axis)
        lattice = first + weight * (second - first)
    return torch.from_numpy(lattice).float()


_DRAW = {
    "plain": lambda: torch.zeros(SIDE, SIDE),
    "stripes": _stripes,
    "checker": _checker,
    "dots": _dots,
    "tiles": _tiles,
    "bricks": _bricks,
    "planks": _planks,
    "clouds": _clouds,
    "grain": _grain,
    "weave": _weave,
}
