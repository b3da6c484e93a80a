"""The radar: how near each model comes to the best of the table, task by task, grouped by domain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from eyespot.evaluate.results import Column, ResultTable
from eyespot.report.exhibits.figures import Figure
from eyespot.report.exhibits.labels import short_labels

DOMAINS: Mapping[str, tuple[str, ...]] = {
    "understanding": ("classification", "knn", "linear", "few_shot", "zero_shot"),
    "dense prediction": ("segmentation", "depth", "normals", "multitask"),
    "correspondence": ("correspondence",),
    "language": ("reading", "retrieval"),
}
"""Domain -> its tasks, in the order in which they stand around the circle."""

CAPTION = (
    "One spoke per task, by its first metric. The outer ring is the best model of this table, the centre is 0: a "
    "spoke's length is value / best where higher is better, and best / value where lower is better. This scale is "
    "eyespot's own choice; unlike one from the worst to the best row it does not blow small differences up. Arcs join "
    "the tasks of one domain: "
)

RADIUS, CENTRE = 84.0, (180.0, 124.0)
_BOX = "0 0 360 248"
_SHORT = {"correspondence": "matching", "few_shot": "few-shot", "zero_shot": "zero-shot", "knn": "k-NN"}


def shares_of_best(table: ResultTable, column: Column) -> dict[str, float]:
    """How near each model comes to the best of a column, in [0, 1]; ours.

    value / best, or best / value where lower is better. Models without a value, and columns with a negative or no
    positive value, for which a ratio says nothing, are left out.
    """
    values = {model: value for model, row in table.rows.items() if (value := row.get(column.key)) is not None}
    values = {model: value for model, value in values.items() if math.isfinite(value)}
    if not values or min(values.values()) < 0 or max(values.values()) == 0:
        return {}
    if column.metric.higher_is_better:
        best = max(values.values())
        return {model: value / best for model, value in values.items()}
    best = min(values.values())
    return {model: best / value if value else 1.0 for model, value in values.items()}


def spokes(table: ResultTable) -> dict[str, list[Column]]:
    """Domain -> the first headline metric of each of its tasks that is in the table and has a scale."""
    first: dict[str, Column] = {}
    for column in table.shown():
        if column.task not in first and shares_of_best(table, column):
            first[column.task] = column
    found = {domain: [first[task] for task in tasks if task in first] for domain, tasks in DOMAINS.items()}
    return {domain: columns for domain, columns in found.items() if columns}


def radars(table: ResultTable) -> list[Figure]:
    """One small radar per model; none for fewer than three tasks or two models, which a table shows better."""
    domains = spokes(table)
    columns = [column for group in domains.values() for column in group]
    if len(columns) < 3 or len(table.rows) < 2:
        return []
    shares = {column.key: shares_of_best(table, column) for column in columns}
    labels = short_labels(table.rows)
    return [
        Figure(label, "", _svg(table, model, domains, shares), alt=_in_words(label, model, domains, shares))
        for model, label in labels.items()
    ]


def caption(table: ResultTable) -> str:
    """What the radars of a table show, in words."""
    groups = []
    for name, columns in spokes(table).items():
        tasks = ", ".join(column.task for column in columns)
        groups.append(name if name == tasks else f"{name} ({tasks})")
    return f"{CAPTION}{', '.join(groups)}."


def _in_words(
    label: str, model: str, domains: Mapping[str, Sequence[Column]], shares: Mapping[str, Mapping[str, float]]
) -> str:
    """Per domain the mean share of the best."""
    parts = []
    for domain, columns in domains.items():
        known = [shares[column.key][model] for column in columns if model in shares[column.key]]
        parts.append(f"{domain} {100 * sum(known) / len(known):.0f} %" if known else f"{domain} not measured")
    return f"{label}, share of the best model: {', '.join(parts)}."


def _svg(
    table: ResultTable,
    model: str,
    domains: Mapping[str, Sequence[Column]],
    shares: Mapping[str, Mapping[str, float]],
) -> str:
    columns = [column for group in domains.values() for column in group]
    step = 2 * math.pi / len(columns)
    # The first domain is centred at the top.
    begin = -math.pi / 2 - step * (len(next(iter(domains.values()))) - 1) / 2
    angles = {column.key: begin + step * place for place, column in enumerate(columns)}
    parts = [
        f'<circle class="ring" cx="{CENTRE[0]}" cy="{CENTRE[1]}" r="{RADIUS * q:.1f}"/>' for q in (0.25, 0.5, 0.75)
    ]
    parts.append(f'<circle class="best" cx="{CENTRE[0]}" cy="{CENTRE[1]}" r="{RADIUS}"/>')
    parts += [_line(angles[column.key]) for column in columns]
    parts += _arcs(domains, angles, step)
    corners = [
        _place(angles[column.key], RADIUS * shares[column.key][model])
        for column in columns
        if model in shares[column.key]
    ]
    if len(corners) > 2:
        parts.append(f'<polygon class="area" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in corners)}"/>')
    parts += [_circle("dot", corner, 3) for corner in corners]
    parts += [_label(table, model, column, angles[column.key]) for column in columns]
    return f'<svg viewBox="{_BOX}" class="radar">{"".join(parts)}</svg>'


def _place(angle: float, radius: float) -> tuple[float, float]:
    return CENTRE[0] + radius * math.cos(angle), CENTRE[1] + radius * math.sin(angle)


def _circle(kind: str, place: tuple[float, float], radius: float) -> str:
    return f'<circle class="{kind}" cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="{radius:.1f}"/>'


def _line(angle: float) -> str:
    x, y = _place(angle, RADIUS)
    return f'<line class="ring" x1="{CENTRE[0]}" y1="{CENTRE[1]}" x2="{x:.1f}" y2="{y:.1f}"/>'


def _arcs(domains: Mapping[str, Sequence[Column]], angles: Mapping[str, float], step: float) -> list[str]:
    """An arc outside the ring along the tasks of each domain."""
    paths, radius = [], RADIUS + 6
    for columns in domains.values():
        first, last = angles[columns[0].key] - 0.36 * step, angles[columns[-1].key] + 0.36 * step
        (x1, y1), (x2, y2) = _place(first, radius), _place(last, radius)
        large = int(last - first > math.pi)
        paths.append(
            f'<path class="arc" d="M{x1:.1f} {y1:.1f}A{radius:.0f} {radius:.0f} 0 {large} 1 {x2:.1f} {y2:.1f}"/>'
        )
    return paths


def _label(table: ResultTable, model: str, column: Column, angle: float) -> str:
    """Task and value beside the spoke's end."""
    x, y = _place(angle, RADIUS + 14)
    side, rise = math.cos(angle), math.sin(angle)
    anchor = "middle" if abs(side) < 0.2 else "start" if side > 0 else "end"
    y += 12 * (rise - 1) / 2 + 3 if abs(side) >= 0.2 else (12 if rise > 0 else -14)
    best = ' class="top"' if model in table.best(column) else ""
    known = model in shares_of_best(table, column)
    unit = f" {column.metric.unit}" if known and column.metric.unit else ""
    value = column.metric.format(table.rows[model].get(column.key)) + unit
    task = _SHORT.get(column.task, column.task)
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(task)}'
        f'<tspan{best} x="{x:.1f}" dy="13">{escape(value)}</tspan></text>'
    )
