"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = True) -> str:
    """A table as GitHub shows it, without a line break at its end.

    Args:
        header: titles of the columns.
        rows: as many cells each; a bar in one is escaped.
        numbers: all columns but the first stand to the right, as numbers do.
    """
    rule = ["---", *("---:" if numbers else "---" for _ in header[1:])]
    return "\n".join(_line(cells) for cells in (header, rule, *rows))


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
