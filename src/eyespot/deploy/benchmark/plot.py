"""The picture: a panel per model, size and batch, a bar per runtime."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eyespot.deploy.benchmark.table import BenchmarkTable, Group, Row
from eyespot.files import atomic_path
from eyespot.report.drawing.colours import PALETTE
from eyespot.report.drawing.plots import style
from eyespot.report.exhibits.figures import INK

COLUMNS = 3
PANEL_WIDTH, BAR_HEIGHT, HEAD_HEIGHT = 4.6, 0.24, 0.75  # inches
COLOURS = {"float32": PALETTE[0], "bfloat16": PALETTE[2], "int8": PALETTE[1], None: PALETTE[6]}


def write_plot(table: BenchmarkTable, path: str | Path) -> None:
    """Draws latencies as a PNG: bars to the median, whiskers to the 95th percentile.

    Written on each bar: milliseconds, how many times as fast as eager, and the share of the machine's matrix peak.
    Each panel has its own scale. Colours tell the precision. Nothing is drawn if nothing was measured.
    """
    panels = {group: measured for group, rows in table.groups.items() if (measured := _measured(rows))}
    if not panels:
        return
    places = _places(list(panels))
    lines, columns = (1 + max(place[axis] for place in places.values()) for axis in (0, 1))
    bars = max(len(rows) for rows in panels.values())
    with matplotlib.rc_context(style("benchmark")):
        height = lines * (HEAD_HEIGHT + BAR_HEIGHT * bars) + 0.6
        drawing = Figure(figsize=(PANEL_WIDTH * columns, height), layout="constrained")
        grid = drawing.subplots(lines, columns, squeeze=False)
        for axes in grid.flatten():
            axes.set_visible(False)
        for group, rows in panels.items():
            _panel(grid[places[group]], group, rows)
        _legend(drawing, [row for rows in panels.values() for row in rows])
        with atomic_path(path) as temporary:
            drawing.savefig(temporary, format="png", dpi=110, facecolor="white")


def _places(groups: list[Group]) -> dict[Group, tuple[int, int]]:
    """(line, column) of each panel: a line per model, a column per size and batch, where both vary."""
    models = list(dict.fromkeys(group.model for group in groups))
    shapes = sorted({(group.batch, group.size) for group in groups})
    if len(models) == 1 or len(shapes) == 1:
        return {group: divmod(number, COLUMNS) for number, group in enumerate(groups)}
    return {group: (models.index(group.model), shapes.index((group.batch, group.size))) for group in groups}


def _measured(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.latency_ms is not None]


def _panel(axes: Axes, group: Group, rows: list[Row]) -> None:
    axes.set_visible(True)
    places = range(len(rows))
    latencies = [row.latency_ms or 0.0 for row in rows]
    tails = [max(0.0, (row.p95_ms or 0.0) - (row.latency_ms or 0.0)) for row in rows]
    longest = max(latency + tail for latency, tail in zip(latencies, tails, strict=True))
    axes.barh(
        places,
        latencies,
        height=0.72,
        color=[COLOURS.get(row.precision, COLOURS[None]) for row in rows],
        xerr=[[0.0] * len(rows), tails],
        error_kw={"elinewidth": 1.0, "capsize": 2.5, "ecolor": INK},
    )
    for place, row in zip(places, rows, strict=True):
        end = latencies[place] + tails[place]
        axes.text(end + 0.015 * longest, place, _label(row), va="center", fontsize=8)
    axes.set_yticks(places, [row.runtime for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.9 * longest)
    axes.grid(False, axis="y")
    axes.set_xlabel("ms" if group.batch == 1 else f"ms for {group.batch} pictures")
    batch = "" if group.batch == 1 else f", batch {group.batch}"
    axes.set_title(f"{_short(group.model)}\n{group.size[0]}x{group.size[1]} px{batch}", fontsize=10, loc="left")


def _label(row: Row) -> str:
    milliseconds = row.latency_ms or 0.0
    parts = [f"{milliseconds:.1f} ms" if milliseconds < 100 else f"{milliseconds:.0f} ms"]
    parts += [f"{row.speedup:.1f}×"] if row.speedup is not None else []
    parts += [f"{row.peak_fraction:.0%} of peak"] if row.peak_fraction is not None else []
    return "  ".join(parts)


def _short(model: str) -> str:
    name = model.partition("?")[0]
    return name if len(name) <= 44 else f"{name[:20]}…{name[-23:]}"


def _legend(drawing: Figure, rows: list[Row]) -> None:
    present = [precision for precision in COLOURS if any(row.precision == precision for row in rows)]
    handles = [matplotlib.patches.Patch(color=COLOURS[key]) for key in present]
    labels = [key or "precision unknown" for key in present]
    drawing.legend(handles, labels, loc="outside lower center", ncols=len(present))
