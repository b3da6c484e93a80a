"""The progress bar of a training: where it is, how fast, how long it will take."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class TrainingBar:
    """A rich progress bar over optimiser steps. On a terminal it moves; elsewhere it prints about ten plain lines.

    Args:
        title: what is being trained.
        steps: how many steps there are in all.
        start: the step to begin at.
        shown: False for processes other than the first, and on request.
    """

    def __init__(self, title: str, steps: int, start: int, shown: bool) -> None:
        self.console = Console(stderr=True)
        self.moving = shown and self.console.is_terminal
        self.plain = shown and not self.console.is_terminal
        self.title, self.steps = title, steps
        self._printed = start
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.moving,
        )
        self.task = self.bar.add_task(title, total=steps, completed=start, note="")

    def __enter__(self) -> TrainingBar:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def step(self) -> None:
        """One step is done."""
        self.bar.advance(self.task)

    def note(self, step: int, loss: float, rate: float) -> None:
        """Shows the latest loss and rate (pictures per second)."""
        text = f"loss {loss:.3f}  {rate:.0f} pictures/s"
        self.bar.update(self.task, note=text)
        if self.plain and (step == self.steps or (step - self._printed) * 10 >= self.steps):
            self._printed = step
            self.console.print(f"{self.title}: step {step}/{self.steps}  {text}", highlight=False)
