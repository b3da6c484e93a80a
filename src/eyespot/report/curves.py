"""Training curves from a run's metrics.jsonl."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from eyespot.engine.metrics import read_lines
from eyespot.report.figures import INK, Figure, svg_of

Series = tuple[np.ndarray, np.ndarray]
Records = dict[str, list[dict[str, Any]]]

# Mid-luminance colours that can be told apart on white and on near-black, and by colour-blind readers.
PALETTE = ("#3a7ebf", "#d0742a", "#2e9b72", "#b1579a", "#b59a1f", "#7a6fc4", "#5f8794", "#c0504d")
_DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
_MOST_POINTS = 240
_PLAIN = FuncFormatter(lambda value, _: f"{value:g}")


def read_metrics(path: str | Path) -> Records:
    """Reads the training records of a run, by stage.

    Lines with an "event" or without a step are left out. Where a resumed run repeated a step, the later record counts.

    Args:
        path: metrics.jsonl; one object per line with "stage", "step" and numbers.

    Returns:
        stage -> its records in order of step; stages in order of appearance.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"no metrics at {path}")
    stages: dict[str, dict[int, dict[str, Any]]] = {}
    for record in read_lines(path):
        if "event" not in record and isinstance(record.get("step"), int):
            stages.setdefault(str(record.get("stage", "training")), {})[record["step"]] = record
    return {stage: [steps[step] for step in sorted(steps)] for stage, steps in stages.items()}


def training_curves(records: Records) -> list[Figure]:
    """Draws what `read_metrics` read: one panel of losses per stage, then learning rate, gradient norm and speed.

    Losses: the total in the page's ink, every term named "teacher/part" in its teacher's colour, parts by dash. The
    axis is logarithmic where all values are positive and span more than a factor of four. Long runs are shown as
    means over equal stretches of steps. Panels without data are left out.

    Args:
        records: stage -> records.

    Returns:
        One SVG figure per panel, small enough to stand side by side or one below the other.
    """
    losses = [_loss_figure(stage, lines) for stage, lines in records.items() if _series(lines, "loss")]
    across = [
        _across_stages(records, "lr", "Learning rate", "learning rate"),
        _across_stages(records, "grad_norm", "Gradient norm", "gradient norm", _scale),
        _across_stages(records, "pictures_per_second", "Speed", "pictures per second", _from_zero),
    ]
    return [*losses, *(figure for figure in across if figure is not None)]


def _loss_figure(stage: str, records: Sequence[Mapping[str, Any]]) -> Figure:
    terms = sorted({key for record in records for key in record if "/" in key and _number(record[key]) is not None})
    terms = terms if len(terms) > 1 else []  # a single term is the total
    groups = list(dict.fromkeys(term.rsplit("/", 1)[0] for term in terms))
    parts = list(dict.fromkeys(term.rsplit("/", 1)[1] for term in terms))
    total = _series(records, "loss")
    assert total is not None
    with matplotlib.rc_context(_style(stage)):
        drawing, axes = _panel("step", "loss")
        drawn = [total[1]]
        axes.plot(*total, color=INK, linewidth=1.6, label="total", zorder=3)
        for term in terms:
            line = _series(records, term)
            if line is None:
                continue
            group, part = term.rsplit("/", 1)
            colour, dash = PALETTE[groups.index(group) % len(PALETTE)], _DASHES[parts.index(part) % len(_DASHES)]
            axes.plot(*line, color=colour, linestyle=dash, label=term, linewidth=1.2)
            drawn.append(line[1])
        _scale(axes, drawn)
        if terms:
            _legend(drawing, axes)
        svg = svg_of(drawing)
    last = total[1][np.isfinite(total[1])]
    change = (
        f"The loss goes from {last[0]:#.3g} to {last[-1]:#.3g} in {int(total[0][-1]):,} steps." if len(last) else ""
    )
    return Figure(stage, change, svg, alt=f"Loss of {stage} over steps. {change}")


def _across_stages(
    records: Records, key: str, title: str, label: str, scale: Callable[[Axes, list[np.ndarray]], None] | None = None
) -> Figure | None:
    lines = {stage: line for stage, stage_records in records.items() if (line := _series(stage_records, key))}
    if not lines:
        return None
    with matplotlib.rc_context(_style(title)):
        drawing, axes = _panel("step, stages one after the other" if len(lines) > 1 else "step", label)
        begin = 0.0
        for index, (stage, (steps, values)) in enumerate(lines.items()):
            axes.plot(steps + begin, values, color=PALETTE[index % len(PALETTE)], label=stage, linewidth=1.4)
            begin += float(steps[-1])
        if scale is not None:
            scale(axes, [values for _, values in lines.values()])
        else:
            axes.yaxis.set_major_formatter(_PLAIN)
        if len(lines) > 1:
            _legend(drawing, axes)
        svg = svg_of(drawing)
    return Figure(title, "", svg, alt=f"{title} over the steps of {', '.join(lines)}.")


def _series(records: Sequence[Mapping[str, Any]], key: str) -> Series | None:
    """Steps and values of one key, thinned to means over equal stretches; None without a finite value."""
    pairs = [(record["step"], value) for record in records if (value := _number(record.get(key))) is not None]
    if not any(math.isfinite(value) for _, value in pairs):
        return None
    steps, values = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    values[~np.isfinite(values)] = np.nan  # a gap in the line
    if len(steps) <= _MOST_POINTS:
        return steps, values
    stretches = np.array_split(np.arange(len(steps)), _MOST_POINTS)
    return steps[[stretch[-1] for stretch in stretches]], np.array([values[stretch].mean() for stretch in stretches])


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _panel(xlabel: str, ylabel: str) -> tuple[Drawing, Axes]:
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


def _scale(axes: Axes, drawn: Iterable[np.ndarray]) -> None:
    values = np.concatenate(list(drawn))
    values = values[np.isfinite(values)]
    if values.min() > 0 and values.max() > 4 * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(_PLAIN)
        axes.yaxis.set_minor_locator(NullLocator())


def _from_zero(axes: Axes, drawn: Iterable[np.ndarray]) -> None:
    axes.set_ylim(bottom=0)


def _legend(drawing: Drawing, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    labels = [label if len(label) <= 44 else f"{label[:20]}…{label[-23:]}" for label in labels]
    longest = max(map(len, labels))
    columns = 3 if longest <= 13 else 2 if longest <= 22 else 1
    drawing.set_figheight(2.5 + 0.19 * math.ceil(len(labels) / columns))
    drawing.legend(handles, labels, loc="outside lower center", ncols=columns)


def _style(salt: str) -> dict[str, Any]:
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
