"""Resolution curves: how a metric changes with the size of the input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import matplotlib
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from eyespot.evaluate.resolution import ResolutionCurve
from eyespot.evaluate.results import Metric
from eyespot.report.drawing.plots import legend, line_properties, panel, style
from eyespot.report.exhibits.figures import Figure, svg_of
from eyespot.report.exhibits.labels import short_labels

_MARKERS = "osD^vPX*"


def resolution_figures(curves: Iterable[ResolutionCurve]) -> list[Figure]:
    """Draws curves over input sizes: one panel per task and headline metric, a line per model.

    The horizontal axis is the side in pixels (the root of the area where pictures are not square), logarithmic. A model
    that takes one size only is a marker without a line. Panels without a value are left out.
    """
    return [
        figure
        for curve in curves
        for metric in curve.metrics
        if metric.headline and (figure := _figure(curve, metric)) is not None
    ]


def _figure(curve: ResolutionCurve, metric: Metric) -> Figure | None:
    factor = 100 if metric.unit == "%" else 1
    labels = short_labels(curve.points)
    lines = {
        model: (sides, [factor * value for value in values])
        for model in curve.points
        if (found := curve.line(model, metric.name)) and (sides := found[0]) and (values := found[1])
    }
    if not lines:
        return None
    title = f"{curve.task}, {metric.name}"
    arrow = "higher is better" if metric.higher_is_better else "lower is better"
    with matplotlib.rc_context(style(f"sizes {title}")):
        drawing, axes = panel("input side, pixels", f"{metric.name}, {metric.unit}" if metric.unit else metric.name)
        for number, (model, (sides, values)) in enumerate(lines.items()):
            properties = line_properties(number) | ({"linestyle": ""} if model in curve.fixed else {})
            marker = _MARKERS[number % len(_MARKERS)]
            axes.plot(sides, values, label=labels[model], marker=marker, markersize=5, linewidth=1.4, **properties)
        axes.margins(x=0.05)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(_ticks([sides for sides, _ in lines.values()])))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda side, _: f"{side:.0f}"))
        axes.xaxis.set_minor_locator(NullLocator())
        legend(drawing, axes)
        svg = svg_of(drawing)
    described = "; ".join(
        f"{labels[model]} {', '.join(f'{value:.3g} at {side:.0f}' for side, value in zip(*line, strict=True))}"
        for model, line in lines.items()
    )
    return Figure(
        title, arrow[0].upper() + arrow[1:] + ".", svg, alt=f"{title} over the input side ({arrow}): {described}."
    )


def _ticks(sides: Sequence[Sequence[float]], least: float = 1.15) -> list[float]:
    """The sizes themselves, without those that stand too near to the one before."""
    kept: list[float] = []
    for side in sorted({side for line in sides for side in line}):
        if not kept or side >= least * kept[-1]:
            kept.append(side)
    return kept
