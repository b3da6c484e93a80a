"""Tables of results in markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eyespot.tables import markdown_table
from results_page.numbers import Measure, Spread, order

Rows = Mapping[str, Mapping[str, Spread | None]]
"""By row and by the key of a measure; None where a model cannot do it."""


def measured(first: str, rows: Rows, measures: Sequence[Measure]) -> str:
    """A row per model, a column per measure.

    The best is bold, and with it what is level with it within the spread; nothing is if that is all.
    """
    best = {measure.key: _best(rows, measure) for measure in measures}
    lines = []
    for name, row in rows.items():
        cells = [_cell(row[measure.key], measure, name in best[measure.key]) for measure in measures]
        lines.append([name, *cells])
    return markdown_table([first, *(measure.head for measure in measures)], lines)


def _best(rows: Rows, measure: Measure) -> set[str]:
    if measure.higher_is_better is None:
        return set()
    known = {name: spread for name, row in rows.items() if (spread := row[measure.key]) is not None}
    sign = 1 if measure.higher_is_better else -1
    top = max(known.values(), key=lambda spread: sign * spread.mean)
    level = {name for name, spread in known.items() if order(top, spread) == 0}
    return level if len(level) < len(known) else set()


def _cell(spread: Spread | None, measure: Measure, bold: bool) -> str:
    if spread is None:
        return "–"
    text = spread.text(measure.digits)
    return f"**{text}**" if bold else text
