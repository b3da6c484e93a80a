"""Printed words: a stroke font of our own, drawn as a map of ink on a card."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

WORDS = ["CAT", "DOG", "SUN", "BUS", "KEY", "CUP", "FOX", "OWL", "PIE", "TREE", "FISH", "MOON"]
CARD_ASPECT = 2.0

# Strokes through points (x, y) on a grid 4 wide and 6 high, y down; "|" starts a new stroke.
_GLYPHS = {
    "A": "06 20 46|14 34",
    "B": "03 33 42 41 30 00 06 36 45 44 33",
    "C": "41 30 10 01 05 16 36 45",
    "D": "00 20 42 44 26 06 00",
    "E": "40 00 06 46|03 33",
    "F": "40 00 06|03 33",
    "G": "41 30 10 01 05 16 36 45 43 23",
    "H": "00 06|40 46|03 43",
    "I": "10 30|20 26|16 36",
    "K": "00 06|40 03 46",
    "L": "00 06 46",
    "M": "06 00 23 40 46",
    "N": "06 00 46 40",
    "O": "10 30 41 45 36 16 05 01 10",
    "P": "06 00 30 41 42 33 03",
    "R": "06 00 30 41 42 33 03|23 46",
    "S": "41 30 10 01 02 13 33 44 45 36 16 05",
    "T": "00 40|20 26",
    "U": "00 05 16 36 45 40",
    "W": "00 16 22 36 40",
    "X": "00 46|40 06",
    "Y": "00 23 40|23 26",
}


def draw_word(word: str, size: int) -> Tensor:
    """Draws a word as it stands on a card.

    Args:
        word: Letters of the font, at most about four.
        size: Side of the square map; it is stretched by `CARD_ASPECT` to the card.

    Returns:
        [size, size] float32, 0 = paper, 1 = ink, with a thin frame around the word.
    """
    step = (torch.arange(size) + 0.5) / size
    x, y = step[None, :] * CARD_ASPECT, step[:, None]
    width_in_units = 4 * len(word) + 1.7 * (len(word) - 1)
    unit = min((CARD_ASPECT - 0.34) / width_in_units, 0.66 / 6)
    left, top = (CARD_ASPECT - unit * width_in_units) / 2, (1 - 6 * unit) / 2
    distance = torch.full((size, size), 9.0)
    for position, letter in enumerate(word):
        for stroke in _GLYPHS[letter].split("|"):
            points = [
                (left + unit * (5.7 * position + int(point[0])), top + unit * int(point[1])) for point in stroke.split()
            ]
            for start, end in pairwise(points):
                distance = torch.minimum(distance, _to_segment(x, y, start, end))
    edge = torch.minimum(torch.minimum(x, CARD_ASPECT - x), torch.minimum(y, 1 - y))
    ink = _coverage(0.6 * unit - distance, size)
    frame = _coverage(0.015 - (edge - 0.045).abs(), size)
    return torch.maximum(ink, frame)


def _to_segment(x: Tensor, y: Tensor, start: tuple[float, float], end: tuple[float, float]) -> Tensor:
    along_x, along_y = end[0] - start[0], end[1] - start[1]
    fraction = ((x - start[0]) * along_x + (y - start[1]) * along_y) / (along_x**2 + along_y**2)
    fraction = fraction.clamp(0, 1)
    off_x, off_y = x - start[0] - fraction * along_x, y - start[1] - fraction * along_y
    return (off_x * off_x + off_y * off_y).sqrt()


def _coverage(inside: Tensor, size: int) -> Tensor:
    """How much of a cell lies inside, from the signed distance of its centre to the edge (positive is inside)."""
    return (inside * size + 0.5).clamp(0, 1)
