"""Colours of the report: told apart on white and on near-black, and by colour-blind readers."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib import colormaps
from torch import Tensor

PALETTE = ("#3a7ebf", "#d0742a", "#2e9b72", "#b1579a", "#b59a1f", "#7a6fc4", "#5f8794", "#c0504d")
"""Lines. Of middle lightness, so no more than eight; dashes and markers tell lines apart as well."""

# Okabe and Ito's set ("Color Universal Design", 2008) with a lighter black; then mixed with white, then with black.
_BASIC = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#3D3D3D")
_MIXED = (("#ffffff", 0.55), ("#000000", 0.5))

UNKNOWN = 0.62
"""Grey, in [0, 1], of pixels about which nothing is said."""


def class_colours(count: int) -> Tensor:
    """One colour per class, float32 [count, 3] in [0, 1]; the first eight are the easiest to tell apart.

    From the 25th on they repeat: nobody tells 150 colours apart, and the borders between regions are drawn as well.
    """
    basic = torch.stack([_rgb(colour) for colour in _BASIC])
    mixed = [basic * (1 - share) + _rgb(other) * share for other, share in _MIXED]
    table = torch.cat([basic, *mixed])
    return table[torch.arange(count) % len(table)]


def in_colours(values: Tensor, low: float, high: float, name: str = "viridis") -> Tensor:
    """Values as colours of a perceptually uniform map.

    Args:
        values: [...]; NaN becomes grey.
        low: the value of the first colour, which all below get too.
        high: the value of the last one.
        name: "viridis", "magma", "cividis": matplotlib's maps whose lightness rises steadily.

    Returns:
        float32 [3, ...] in [0, 1].
    """
    share = ((values.float() - low) / max(high - low, 1e-12)).clamp(0, 1)
    colours = torch.from_numpy(np.asarray(colormaps[name](share.nan_to_num(0).numpy()), dtype=np.float32))
    return torch.where(share.isnan(), UNKNOWN, colours[..., :3].movedim(-1, 0))


def stops(name: str = "viridis", count: int = 8) -> list[str]:
    """Colours of a map at equal steps, as CSS writes them."""
    return [
        "#" + "".join(f"{round(255 * channel):02x}" for channel in colormaps[name](place)[:3])
        for place in np.linspace(0, 1, count)
    ]


def _rgb(colour: str) -> Tensor:
    return torch.tensor([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])
