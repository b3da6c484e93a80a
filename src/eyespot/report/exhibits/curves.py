"""Training curves from a run's metrics.jsonl."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from eyespot.engine.metrics import read_lines
from eyespot.evaluate.results import Metric
from eyespot.evaluate.tasks import TASKS
from eyespot.report.drawing.colours import PALETTE
from eyespot.report.drawing.plots import DASHES, legend, line_properties, panel, style
from eyespot.report.exhibits.figures import INK, Figure, svg_of

Curve = tuple[np.ndarray, np.ndarray]
Records = dict[str, list[dict[str, Any]]]
Scaling = Callable[[Axes, list[np.ndarray]], None]

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
    losses = [_loss_figure(stage, lines) for stage, lines in records.items() if _curve(lines, "loss")]
    across = [
        _across_stages(records, "lr", "Learning rate", "learning rate", _plain),
        _across_stages(records, "grad_norm", "Gradient norm", "gradient norm", _scale),
        _across_stages(records, "pictures_per_second", "Speed", "pictures per second", _from_zero),
    ]
    return [*losses, *(figure for figure in across if figure is not None)]


def _loss_figure(stage: str, records: Sequence[Mapping[str, Any]]) -> Figure:
    terms = sorted({key for record in records for key in record if "/" in key and _number(record[key]) is not None})
    terms = terms if len(terms) > 1 else []  # a single term is the total
    groups = list(dict.fromkeys(term.rsplit("/", 1)[0] for term in terms))
    parts = list(dict.fromkeys(term.rsplit("/", 1)[1] for term in terms))
    total = _curve(records, "loss")
    assert total is not None
    with matplotlib.rc_context(style(stage)):
        drawing, axes = panel("step", "loss")
        drawn = [total[1]]
        axes.plot(*total, color=INK, linewidth=1.6, label="total", zorder=3)
        for term in terms:
            line = _curve(records, term)
            if line is None:
                continue
            group, part = term.rsplit("/", 1)
            colour, dash = PALETTE[groups.index(group) % len(PALETTE)], DASHES[parts.index(part) % len(DASHES)]
            axes.plot(*line, color=colour, linestyle=dash, label=term, linewidth=1.2)
            drawn.append(line[1])
        _scale(axes, drawn)
        if terms:
            legend(drawing, axes)
        svg = svg_of(drawing)
    last = total[1][np.isfinite(total[1])]
    change = (
        f"The loss goes from {last[0]:#.3g} to {last[-1]:#.3g} in {int(total[0][-1]):,} steps." if len(last) else ""
    )
    return Figure(stage, change, svg, alt=f"Loss of {stage} over steps. {change}")


def overlaid_curves(runs: Mapping[str, Records]) -> list[Figure]:
    """Draws several runs into the same panels, one per stage: the total loss, then learning rate and speed.

    Args:
        runs: label -> what `read_metrics` read. A run without a stage is missing in its panel.

    Returns:
        One SVG figure per panel, each run with its own colour and dash.
    """
    return [
        *_overlaid(runs, "loss", "loss", _scale),
        *_overlaid(runs, "lr", "learning rate", _plain),
        *_overlaid(runs, "pictures_per_second", "pictures per second", _from_zero),
    ]


def probe_curves(runs: Mapping[str, Records]) -> list[Figure]:
    """Draws what probes measured while runs were trained, a panel per metric; several runs lie over each other.

    Args:
        runs: label -> stage -> records with "step" and "TASK/METRIC", see `read_probes`.
    """
    keys = {
        key for records in runs.values() for lines in records.values() for line in lines for key in line if "/" in key
    }
    figures: list[Figure] = []
    for key in sorted(keys):
        metric = _metric(key)
        percent = metric is not None and metric.unit == "%"
        unit = metric.unit if metric is not None else ""
        shown = {run: _times(records, key, 100 if percent else 1) for run, records in runs.items()}
        title, label = key.replace("/", ", "), f"{key.partition('/')[2]}, {unit}" if unit else key.partition("/")[2]
        if len(runs) > 1:
            figures += _overlaid(shown, key, label, _plain, f"{key.partition('/')[0]}, ")
        else:
            figure = _across_stages(next(iter(shown.values())), key, title, label, _plain)
            figures += [figure] if figure is not None else []
    return figures


def _metric(key: str) -> Metric | None:
    task, _, name = key.partition("/")
    return next((metric for metric in (TASKS[task].metrics if task in TASKS else ()) if metric.name == name), None)


def _times(records: Records, key: str, factor: float) -> Records:
    """The records with one number times a factor, and those without it left out."""
    return {
        stage: [{"step": line["step"], key: factor * line[key]} for line in lines if line.get(key) is not None]
        for stage, lines in records.items()
    }


def _overlaid(runs: Mapping[str, Records], key: str, label: str, scale: Scaling, prefix: str = "") -> list[Figure]:
    """One panel per stage with a line per run."""
    properties = {run: line_properties(number) for number, run in enumerate(runs)}
    figures = []
    for stage in dict.fromkeys(stage for records in runs.values() for stage in records):
        lines = {run: line for run, records in runs.items() if (line := _curve(records.get(stage, ()), key))}
        if not lines:
            continue
        title = f"{prefix}{stage}, {label}"
        with matplotlib.rc_context(style(title)):
            drawing, axes = panel("step", label)
            for run, (steps, values) in lines.items():
                axes.plot(steps, values, label=run, linewidth=1.4, **properties[run])
            scale(axes, [values for _, values in lines.values()])
            legend(drawing, axes)
            svg = svg_of(drawing)
        ends = ", ".join(f"{run} {values[np.isfinite(values)][-1]:#.3g}" for run, (_, values) in lines.items())
        figures.append(Figure(title, "", svg, alt=f"{title} over steps. At the end: {ends}."))
    return figures


def _across_stages(records: Records, key: str, title: str, label: str, scale: Scaling) -> Figure | None:
    lines = {stage: line for stage, stage_records in records.items() if (line := _curve(stage_records, key))}
    if not lines:
        return None
    with matplotlib.rc_context(style(title)):
        drawing, axes = panel("step, stages one after the other" if len(lines) > 1 else "step", label)
        begin = 0.0
        for index, (stage, (steps, values)) in enumerate(lines.items()):
            axes.plot(steps + begin, values, color=PALETTE[index % len(PALETTE)], label=stage, linewidth=1.4)
            begin += float(steps[-1])
        scale(axes, [values for _, values in lines.values()])
        if len(lines) > 1:
            legend(drawing, axes)
        svg = svg_of(drawing)
    return Figure(title, "", svg, alt=f"{title} over the steps of {', '.join(lines)}.")


def _curve(records: Sequence[Mapping[str, Any]], key: str) -> Curve | None:
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


def _scale(axes: Axes, drawn: Iterable[np.ndarray]) -> None:
    values = np.concatenate(list(drawn))
    values = values[np.isfinite(values)]
    if values.min() > 0 and values.max() > 4 * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(_PLAIN)
        axes.yaxis.set_minor_locator(NullLocator())


def _plain(axes: Axes, drawn: Iterable[np.ndarray]) -> None:
    axes.yaxis.set_major_formatter(_PLAIN)


def _from_zero(axes: Axes, drawn: Iterable[np.ndarray]) -> None:
    axes.set_ylim(bottom=0)
