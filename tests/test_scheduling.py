"""Tests that would disturb each other are dealt to one process."""

import re
from pathlib import Path

import pytest

pytest.importorskip("xdist", reason="pytest-xdist is not installed")

from scheduling import ONE_AT_A_TIME, PROCESSES, ZOO, group_of

TESTS = Path(__file__).resolve().parent


def test_whoever_starts_processes_by_our_helpers_is_in_one_group() -> None:
    helpers = re.compile(r"^from (processes|process_groups) import", re.MULTILINE)
    users = [path for path in TESTS.rglob("test_*.py") if helpers.search(path.read_text())]
    assert len(users) > 10
    alone = [str(path) for path in users if group_of(f"tests/{path.relative_to(TESTS)}::test_it") != PROCESSES]
    assert not alone, "add them to ONE_AT_A_TIME"


def test_every_pattern_is_of_files_that_are_there() -> None:
    assert [pattern for pattern in ONE_AT_A_TIME if not list(TESTS.parent.glob(pattern))] == []


def test_files_and_models_of_the_zoo_stay_together() -> None:
    assert (
        group_of("tests/test_files.py::test_a[1-2]") == group_of("tests/test_files.py::test_b") == "tests/test_files.py"
    )
    one, other = (group_of(f"{ZOO}::test_{name}[swin v2{rest}]") for name, rest in (("a", ""), ("b", "-nan")))
    assert one == other != group_of(f"{ZOO}::test_a[timm]")
