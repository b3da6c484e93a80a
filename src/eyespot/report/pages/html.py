"""The report: one self-contained HTML file that works offline, on a phone and in the dark."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from eyespot.encoders.licenses import terms_of
from eyespot.evaluate.results import ResultTable
from eyespot.files import atomic_write_text
from eyespot.report.exhibits import radar
from eyespot.report.exhibits.figures import PICTURE_SIDE, AnyFigure, Figure, PictureGrid
from eyespot.report.exhibits.table import TableView, table_view
from eyespot.report.pages.licence_box import LicenceBox

LARGEST = 5_000_000
"""Bytes that a page should not exceed; pictures are shrunk until it does not."""
_LEAST_SIDE = 48
_BAND = 8  # pictures that stand side by side on a phone


@dataclass(frozen=True)
class Report:
    """Everything that the page of a run, an evaluation or several of them shows. A section without content is left out.

    Attributes:
        title: heading of the page.
        summary: one or two sentences below it: what was distilled into what, or what was measured.
        headline: label -> short value, the facts to see first (student, size, pictures, minutes).
        table: what was measured; its headline columns are shown at once, the rest and its settings unfold.
        resolution: curves over input sizes, small figures that stand side by side.
        figures: what encoders see: drawings, grids and strips of pictures, each across the page.
        examples: the same for what they say about labelled data.
        curves: of the training, small figures that stand side by side.
        licences: models with their licences; a verdict on commercial use for what was learnt from them.
        configs: name of the run -> its resolved configuration as YAML.
        machines: name of the run -> label -> value, see `machine.machine_info`; empty values are left out.
        notes: remarks, one paragraph each.
        failures: pictures that could not be read, one line each.
    """

    title: str
    summary: str = ""
    headline: Mapping[str, Any] = field(default_factory=dict)
    table: ResultTable | None = None
    resolution: Sequence[Figure] = ()
    figures: Sequence[AnyFigure] = ()
    examples: Sequence[AnyFigure] = ()
    curves: Sequence[Figure] = ()
    licences: Sequence[LicenceBox] = ()
    configs: Mapping[str, str] = field(default_factory=dict)
    machines: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    failures: Sequence[str] = ()

    @property
    def results(self) -> TableView | None:
        """The table, ready to be laid out; None without rows."""
        return table_view(self.table) if self.table is not None and self.table.rows else None

    @property
    def band(self) -> PictureGrid | None:
        """The first row of the first grid of pictures, which stands at the top of the page; None without one."""
        grid = next((figure for figure in self.figures if isinstance(figure, PictureGrid)), None)
        if grid is None or len(grid.columns) < 2:
            return None
        return PictureGrid(grid.title, "", {name: [column[0]] for name, column in list(grid.columns.items())[:_BAND]})

    @property
    def radars(self) -> Sequence[Figure]:
        """How near each model comes to the best of the table, see `radar.radars`."""
        return radar.radars(self.table) if self.table is not None else ()

    @property
    def radar_caption(self) -> str:
        """What `radars` show."""
        return radar.caption(self.table) if self.table is not None else ""

    def html(self) -> str:
        """The page as text: no script, no request to any address.

        Pictures are shrunk, as a last resort to thumbnails, until the page is not above `LARGEST`.
        """
        environment = Environment(
            loader=PackageLoader("eyespot.report.pages", ""),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {
            "terms": lambda licence: terms_of(licence).label,
            "count": short_count,
            "words": in_words,
            "zip": zip,
            "breakable": breakable,
        }
        template = environment.get_template("template.html.j2")
        side = PICTURE_SIDE
        while True:
            page = template.render(report=self, results=self.results, side=side)
            excess = len(page.encode()) / LARGEST
            if excess <= 1 or side <= _LEAST_SIDE:
                return page
            side = max(_LEAST_SIDE, int(0.95 * side / excess**0.5))

    def write(self, path: str | Path) -> None:
        """Writes the page as one indivisible step."""
        atomic_write_text(path, self.html())


def short_count(number: float) -> str:
    """A count in three digits: 5_524_416 -> "5.52 M"; an en dash for zero, which stands for not known."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:g}" if number else "–"


def breakable(name: str) -> Markup:
    """A name whose lines may break after underscores and slashes."""
    return Markup(re.sub(r"([_/])(?=\w)", r"\1<wbr>", str(escape(name))))


def in_words(value: Any) -> str:
    """A setting as people read it: lists and mappings without brackets, True as yes."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {in_words(one)}" for key, one in value.items() if one not in (None, {}, []))
    if isinstance(value, list | tuple):
        return ", ".join(in_words(one) for one in value)
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
