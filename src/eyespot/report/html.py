"""The report: one self-contained HTML file that works offline, on a phone and in the dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from eyespot.encoders.licenses import terms_of, verdict
from eyespot.evaluate.results import ResultTable
from eyespot.files import atomic_write_text
from eyespot.report.figures import Figure, PictureGrid
from eyespot.report.table import TableView, table_view
from eyespot.report.teachers import Teacher


@dataclass(frozen=True)
class Report:
    """Everything that the page of a run shows. A section without content is left out.

    Attributes:
        title: heading of the page.
        summary: one or two sentences below it: what was distilled into what.
        headline: label -> short value, the facts to see first (student, size, pictures, minutes).
        table: what was measured; its headline columns are shown at once, the rest and its settings unfold.
        table_caption: on what it was measured, in a sentence.
        curves: small figures that stand side by side.
        figures: drawings and grids of pictures, each across the page.
        teachers: see `teachers.describe`; they also decide the verdict on commercial use.
        config_yaml: the resolved configuration.
        machine: label -> value, see `machine.machine_info`; empty values are left out.
        notes: remarks on the run, one paragraph each.
        failures: pictures that could not be read, one line each.
    """

    title: str
    summary: str = ""
    headline: Mapping[str, Any] = field(default_factory=dict)
    table: ResultTable | None = None
    table_caption: str = ""
    curves: Sequence[Figure] = ()
    figures: Sequence[Figure | PictureGrid] = ()
    teachers: Sequence[Teacher] = ()
    config_yaml: str = ""
    machine: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    failures: Sequence[str] = ()

    @property
    def results(self) -> TableView | None:
        """The table, ready to be laid out; None without rows."""
        return table_view(self.table) if self.table is not None and self.table.rows else None

    def html(self) -> str:
        """The page as text: no script, no request to any address."""
        environment = Environment(
            loader=PackageLoader("eyespot", "report"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["terms"] = lambda licence: terms_of(licence).label
        environment.filters["count"] = short_count
        template = environment.get_template("template.html.j2")
        judged = verdict(teacher["licence"] for teacher in self.teachers)
        return template.render(report=self, results=self.results, verdict=judged)

    def write(self, path: str | Path) -> None:
        """Writes the page as one indivisible step."""
        atomic_write_text(path, self.html())


def write_report(path: str | Path, *, title: str, **sections: Any) -> None:
    """Writes `Report(title, **sections)` to `path`; the sections are the attributes of `Report`."""
    Report(title, **sections).write(path)


def short_count(number: float) -> str:
    """A count in three digits: 5_524_416 -> "5.52 M"; an en dash for zero, which stands for not known."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:g}" if number else "–"
