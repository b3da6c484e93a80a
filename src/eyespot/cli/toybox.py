"""The verbs that need nothing but the built-in toybox."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def quickstart(output: Path = Path("runs/quickstart"), preset: Literal["full", "short"] = "full") -> None:
    """Run the whole pipeline on the built-in toybox: experts, proxy, student, evaluation, report. No data needed.

    Args:
        output: the run folder.
        preset: full takes about a quarter of an hour on two cores, short about three minutes.
    """
    from eyespot.quickstart import quickstart as run

    run(output, preset).print()
    print(f"\nReport: {output / 'report.html'}   student: {output / 'student'}")


def toybox(output: Path = Path("toybox.png"), count: int = 24, size: int = 128, first: int = 0) -> None:
    """Draw a contact sheet of toybox scenes with their ground truth.

    Args:
        output: the PNG file.
        count: how many scenes.
        size: pixels per side of each.
        first: seed of the first scene.
    """
    from eyespot.data.toybox import contact_sheet

    contact_sheet(output, seeds=range(first, first + count), size=size)
    print(f"written: {output}")
