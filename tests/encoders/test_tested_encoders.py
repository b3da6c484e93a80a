"""docs/tested-encoders.md is what benchmarks/tested_encoders.py writes."""

import sys
from pathlib import Path

import pytest
from zoo import ENTRIES
from zoo_timm import GIANTS, TINY

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "tested-encoders.md").read_text()


@pytest.fixture
def script(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "benchmarks")])
    import tested_encoders

    return tested_encoders


def test_the_page_names_all_of_them():
    rows = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| `")]
    of_timm = {row[0].strip("`").removeprefix("timm/").partition(".")[0] for row in rows if row[0].startswith("`timm/")}
    others = {row[1] for row in rows if not row[0].startswith("`timm/")}
    assert of_timm == {*TINY, *GIANTS}
    assert others == ENTRIES.keys() - TINY.keys()


def test_rows_are_true(script):
    assert script.timm_row("hiera_tiny_224") in PAGE
    assert script.timm_row("mobilenetv3_small_050") in PAGE
    assert script.giant_row("vit_pe_lang_gigantic_patch14_448") in PAGE
    assert script.other_row("onnx, tokens of one size") in PAGE


@pytest.mark.zoo
def test_the_page_is_what_the_script_writes(script):
    assert script.table() == PAGE
