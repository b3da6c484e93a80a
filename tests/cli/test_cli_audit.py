"""`eyespot audit`."""

import json
from pathlib import Path
from typing import Any

import pytest

SMALL = [
    *("--student", "timm/test_vit", "--size", "32", "--teacher-size", "32", "--batch", "4", "--adapter-width", "8"),
    *("--held-out", "8", "--accelerator", "cpu", "--precision", "32-true"),
]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    from eupe_tiny import write_pictures

    return write_pictures(tmp_path / "pictures", 24)


def teachers(folder: Path) -> list[str]:
    return [f"python/{folder}/teachers.py:{name}" for name in ("what", "where")]


def test_audit_prints_tables_and_writes_two_files(eyespot: Any, folder: Path, pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "audit"
    arguments = ["--data", pictures, "--steps", "2", "--seeds", "0", "1", *SMALL, "--output", output]
    answer = eyespot("audit", *teachers(folder), *arguments)
    assert answer.code == 0, answer.err
    assert all(f"## {heading}" in answer.out for heading in ("Verdicts", "Interference", "Similarity of the teachers"))
    assert "| what, where | **" in answer.out and "audit.md and audit.json" in answer.out
    facts = json.loads((output / "audit.json").read_text())
    assert facts["teachers"] == ["what", "where"] and facts["settings"]["seeds"] == [0, 1]
    assert {verdict["word"] for verdict in facts["verdicts"]} <= {"complement", "indifferent", "fight"}
    assert (output / "audit.md").read_text() in answer.out

    again = eyespot("audit", *teachers(folder), *arguments)
    assert again.out == answer.out and "seed 1: measured before" in again.err


def test_steps_0_compares_the_teachers_alone(eyespot: Any, folder: Path, pictures: Path, no_training: None) -> None:
    answer = eyespot("audit", *teachers(folder), "--data", pictures, "--steps", "0", *SMALL)
    assert answer.code == 0, answer.err
    assert "## Verdicts" not in answer.out and "## Gradients" in answer.out


def test_audit_explains_itself_and_its_mistakes(eyespot: Any, folder: Path, pictures: Path, tmp_path: Path) -> None:
    words = eyespot("audit", "--help").words
    assert all(word in words for word in ("--held-out", "--seeds", "from all but each one", "committee-audit.md"))
    answer = eyespot("audit", teachers(folder)[0], "--data", pictures, *SMALL)
    assert answer.code == 1 and "name at least two" in answer.err
    (tmp_path / "empty").mkdir()
    answer = eyespot("audit", *teachers(folder), "--data", tmp_path / "empty", *SMALL)
    assert answer.code == 1 and "no pictures" in answer.err
