"""The picture of results: experts, students and proxy on real pictures. SVG is text, so it can be compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from results_page.committee import KNN, MIOU, PCK, RMSE
from results_page.numbers import Measure, load

MODELS = {
    "expert semantic": ("eupe_real", "expert semantic", "#5b6b7f"),
    "expert segmentation": ("eupe_real", "expert segmentation", "#5b6b7f"),
    "expert depth": ("eupe_real", "expert depth", "#5b6b7f"),
    "proxy, ResNet-18": ("eupe_real", "proxy", "#2c8a6b"),
    "student, ResNet-10": ("eupe_real_cnn", "full", "#d9622b"),
    "untrained ResNet-10": ("eupe_real_cnn", "untrained", "#b8bec6"),
    "student, ViT-T": ("eupe_real", "full", "#d9622b"),
    "untrained ViT-T": ("eupe_real", "untrained", "#b8bec6"),
}
PANELS = (KNN, MIOU, RMSE, PCK)
LEFT, TOP, ROW, PANEL, GAP = 150, 52, 24, 158, 22
FONT = "font-family='Helvetica,Arial,sans-serif'"


def picture() -> str:
    """One panel per measure, one line per model, one dot per seed."""
    width = LEFT + len(PANELS) * (PANEL + GAP) + 8
    height = TOP + len(MODELS) * ROW + 34
    lines = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' {FONT} font-size='12'>",
        "<title>Experts, students and proxy on real pictures, one dot per seed</title>",
        f"<rect width='{width}' height='{height}' rx='6' fill='#ffffff'/>",
        *_names(),
        *(line for place, measure in enumerate(PANELS) for line in _panel(place, measure)),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _names() -> Iterator[str]:
    for place, (name, (_, _, colour)) in enumerate(MODELS.items()):
        weight = " font-weight='bold'" if "student" in name else ""
        ink = "#7a828c" if "untrained" in name else colour
        yield f"<text x='{LEFT - 12}' y='{_y(place) + 4}' text-anchor='end' fill='{ink}'{weight}>{name}</text>"


def _panel(place: int, measure: Measure) -> Iterator[str]:
    left = LEFT + place * (PANEL + GAP)
    values = {name: _values(name, measure) for name in MODELS}
    low, high = _ends(values, measure)
    better = "more is better" if measure.higher_is_better else "less is better"
    middle = left + PANEL / 2
    yield f"<text x='{middle:g}' y='20' text-anchor='middle' fill='#1d2530' font-weight='bold'>{_head(measure)}</text>"
    yield f"<text x='{middle:g}' y='36' text-anchor='middle' fill='#7a828c' font-size='10'>{better}</text>"
    for row, (name, found) in enumerate(values.items()):
        y = _y(row)
        yield f"<line x1='{left}' x2='{left + PANEL}' y1='{y}' y2='{y}' stroke='#e3e6ea'/>"
        for value in found:
            x = left + PANEL * (value - low) / (high - low)
            yield f"<circle cx='{x:.1f}' cy='{y}' r='4.5' fill='{MODELS[name][2]}' fill-opacity='0.85'/>"
    yield from _axis(left, low, high, measure)


def _axis(left: int, low: float, high: float, measure: Measure) -> Iterator[str]:
    y = TOP + len(MODELS) * ROW + 14
    for anchor, x, value in (("start", left, low), ("end", left + PANEL, high)):
        yield f"<text x='{x}' y='{y}' text-anchor='{anchor}' fill='#7a828c' font-size='10'>{value:g}</text>"


def _head(measure: Measure) -> str:
    return f"{measure.name}, {measure.unit}"


def _ends(values: Mapping[str, list[float]], measure: Measure) -> tuple[float, float]:
    """Zero for shares, a little more than the data for the rest; the upper end is a round number."""
    largest = max(max(found) for found in values.values())
    if measure.unit == "%":
        return 0.0, -(-largest // 10) * 10
    smallest = min(min(found) for found in values.values())
    return (smallest * 10 // 1) / 10, -(-largest * 10 // 1) / 10


def _values(name: str, measure: Measure) -> list[float]:
    file, arm, _ = MODELS[name]
    rows = load(file)["table"]["rows"]
    return [row[measure.key] * measure.factor for model, row in rows.items() if model.rstrip(" 0123456789") == arm]


def _y(row: int) -> int:
    return TOP + row * ROW + ROW // 2
