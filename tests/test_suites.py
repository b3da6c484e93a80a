"""A large suite is left out only if it passed with exactly what is there."""

import json
from pathlib import Path
from typing import Any

import pytest

import suites

PLACES = {
    "zoo": ("src/eyespot/features.py", "src/eyespot/encoders/sources/timm.py", "tests/encoders/zoo.py"),
    "formats": ("src/eyespot/deploy/graph.py", "docs/deploy/browser/index.html", "tests/deploy/test_litert.py"),
}
BOTH = ("tests/helpers/toys.py", "tests/conftest.py")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout in which both suites have passed."""
    for place in (*PLACES["zoo"], *PLACES["formats"], *BOTH):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(place)
    monkeypatch.setattr(suites, "ROOT", tmp_path)
    monkeypatch.setattr(suites, "RECORD", tmp_path / "tests/passed.json")
    ended(monkeypatch, 0)
    assert suites.run(suites.FILES) == 0
    return tmp_path


def ended(monkeypatch: pytest.MonkeyPatch, code: int, meanwhile: Any = lambda: None) -> None:
    class Done:
        returncode = code

    def run(*_: Any, **__: Any) -> Done:
        meanwhile()
        return Done()

    monkeypatch.setattr(suites.subprocess, "run", run)


def test_what_passed_is_left_out(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert suites.due() == {}
    assert suites.main(["select"]) == 0
    assert capsys.readouterr().out == "not zoo and not formats\n"


@pytest.mark.parametrize(
    ("place", "marks"),
    [
        *((place, {"zoo", "formats"} if "src/eyespot/" in place else {"zoo"}) for place in PLACES["zoo"]),
        *((place, {"formats"}) for place in PLACES["formats"]),
        *((place, {"zoo", "formats"}) for place in BOTH),
    ],
)
def test_any_change_of_its_files_makes_a_suite_run(project: Path, place: str, marks: set[str]) -> None:
    (project / place).write_text("changed")
    assert suites.due() == dict.fromkeys(marks, "its files changed")
    (project / place).write_text(place)
    assert suites.due() == {}
    (project / place).with_name("new.py").write_text(place)
    assert suites.due().keys() == (marks if not place.endswith("conftest.py") else set())


def test_a_newer_library_makes_it_run(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"timm": "99.0"}
    monkeypatch.setattr(suites, "_version", lambda name: versions.get(name, known[name]))
    known = {name: one for mark in suites.passed().values() for name, one in mark["libraries"].items()}
    assert suites.due() == dict.fromkeys(("zoo", "formats"), f"timm {known['timm']} -> 99.0")


def test_what_failed_or_changed_meanwhile_is_not_recorded(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = project / PLACES["zoo"][1]
    file.write_text("changed")
    ended(monkeypatch, 1)
    assert suites.run(["zoo"]) == 1 and "zoo" in suites.due()
    ended(monkeypatch, 0, meanwhile=lambda: file.write_text("changed again"))
    assert suites.run(["zoo"]) == 0 and "zoo" in suites.due()


def test_without_a_record_all_run(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suites.RECORD.unlink()
    suites.main(["select"])
    assert capsys.readouterr().out == "\n"
    assert suites.due() == dict.fromkeys(suites.FILES, "it has not passed yet")


def test_files_that_moved_away_are_an_error_and_not_forgotten(project: Path) -> None:
    (project / "src/eyespot/deploy/graph.py").unlink()
    with pytest.raises(FileNotFoundError, match=r"deploy.*matches nothing"):
        suites.due()


def test_the_patterns_fit_this_checkout() -> None:
    assert suites.present("zoo")["files"] != suites.present("formats")["files"]


def test_the_record_is_plain_and_sorted() -> None:
    if suites.RECORD.exists():
        text = suites.RECORD.read_text()
        assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"
