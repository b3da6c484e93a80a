import io

import pytest
from rich.console import Console

from eyespot.engine import progress
from eyespot.engine.progress import TrainingBar


@pytest.fixture
def written(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda stderr: Console(file=stream, force_terminal=False, width=100))
    return stream


def run(bar, steps, start=0, every=1):
    with bar:
        for step in range(start + 1, steps + 1):
            bar.step()
            if step % every == 0:
                bar.note(step, 1.5, 20.0)


def test_without_a_terminal_about_ten_lines_are_printed_the_last_step_among_them(written):
    run(TrainingBar("stage", 500, 0, True), 500, every=10)
    lines = written.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[-1] == "stage: step 500/500  loss 1.500  20 pictures/s"


def test_a_resumed_stage_counts_from_where_it_stands(written):
    run(TrainingBar("stage", 100, 95, True), 100, start=95)
    assert [line.split()[2] for line in written.getvalue().splitlines()] == ["100/100"]


def test_hidden_prints_nothing(written):
    run(TrainingBar("stage", 20, 0, False), 20)
    assert written.getvalue() == ""
