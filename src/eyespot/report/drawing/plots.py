"""What the line drawings of the report have in common: size of a panel, properties of lines, legend, settings."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FuncFormatter, MaxNLocator

from eyespot.report.drawing.colours import PALETTE
from eyespot.report.exhibits.figures import INK

DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))


def line_properties(number: int) -> dict[str, Any]:
    """Colour and dash of the line with this number; 32 different ones."""
    return {
        "color": PALETTE[number % len(PALETTE)],
        "linestyle": DASHES[(number + number // len(PALETTE)) % len(DASHES)],
    }


def panel(xlabel: str, ylabel: str) -> tuple[Drawing, Axes]:
    """An empty drawing of the size of one panel; whole numbers along x, thousands as k."""
    drawing = Drawing(figsize=(4.1, 2.5), layout="constrained")
    axes = drawing.add_subplot()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda step, _: f"{step / 1000:g}k" if step >= 10_000 else f"{step:g}")
    )
    return drawing, axes


def legend(drawing: Drawing, axes: Axes) -> None:
    """Names the lines below the drawing, which grows by that."""
    handles, labels = axes.get_legend_handles_labels()
    labels = [label if len(label) <= 44 else f"{label[:20]}…{label[-23:]}" for label in labels]
    longest = max(map(len, labels))
    columns = 3 if longest <= 13 else 2 if longest <= 22 else 1
    drawing.set_figheight(2.5 + 0.19 * math.ceil(len(labels) / columns))
    drawing.legend(handles, labels, loc="outside lower center", ncols=columns)


def style(salt: str) -> dict[str, Any]:
    """Settings of matplotlib for all drawings of the report; `salt` tells one drawing of a page from another."""
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,  # names inside one drawing must not meet those of another on the same page
        "text.parse_math": False,
        "font.family": "sans-serif",
        "font.size": 10,
        "legend.fontsize": 9,
        "legend.frameon": False,
        "legend.columnspacing": 1.0,
        "legend.handlelength": 1.6,
        "legend.handletextpad": 0.5,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": INK,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": INK,
        "grid.alpha": 0.13,
        "grid.linewidth": 0.6,
        "xtick.color": INK,
        "ytick.color": INK,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
    }
