"""Showing people how far an evaluation is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape


@contextmanager
def shown_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A `progress` for `evaluate`: one line on the terminal that says what is going on; silent where there is none."""
    with Console(stderr=True).status("evaluating") as status:
        yield lambda what, done, total: status.update(f"[{done}/{total}] {escape(what)}")
