"""The scripts of `docs/extend/` run, each in a folder of its own, and the page quotes them as they are."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from eyespot.distill.classes import methods
from eyespot.distill.features import standardizers

DOCS = Path(__file__).parents[1] / "docs"
SCRIPTS = sorted((DOCS / "extend").glob("*.py"))

MAKES = {
    "teacher": "student/model.safetensors",
    "student": "student/model.safetensors",
    "method": "students",
    "task": "student/model.safetensors",
}
"""What a script leaves in its folder; the others leave the losses of a stage."""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_runs(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path / "run")])
    monkeypatch.setattr(methods, "METHODS", methods.METHODS.copy())
    monkeypatch.setattr(standardizers, "STANDARDIZERS", standardizers.STANDARDIZERS.copy())
    runpy.run_path(str(script), run_name="__main__")
    assert (tmp_path / "run" / MAKES.get(script.stem, "metrics.jsonl")).exists()
    assert capsys.readouterr().out


def test_the_page_quotes_all_scripts_as_they_are() -> None:
    quote = runpy.run_path(str(DOCS / "quote_scripts.py"))
    page = (DOCS / "extend.md").read_text(encoding="utf-8")
    assert quote["quoted"](page) == page, "run `python docs/quote_scripts.py` and commit what it writes"
    assert sorted(quote["QUOTED"].findall(page)) == [f"extend/{script.name}" for script in SCRIPTS]
