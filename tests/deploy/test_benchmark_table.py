import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from eyespot.deploy.benchmark.plot import _places, write_plot
from eyespot.deploy.benchmark.table import BenchmarkTable, Group, Row

SMALL = Group("timm/a?pretrained=false", (64, 96), 1, parameters=5.5, gmacs=1.25)
LARGE = Group("onnx/b.onnx", (128, 128), 8)
EAGER = Row(
    SMALL, "eager", "measured", "", "float32", 20.0, 25.0, 1.0, 1.0, 1.0, 50.0, 200.0, 0.625, 60.5, 0.3, 21.0, runs=50
)
FAST = replace(
    EAGER, runtime="openvino-int8", precision="int8", latency_ms=5.0, speedup=4.0, speedup_low=3.9, speedup_high=4.1
)
SKIPPED = Row(SMALL, "litert", "skipped", "litert_torch not installed: pip install 'eyespot[litert]'", "float32")
FAILED = Row(SMALL, "executorch", "failed", "export: no kernel for [this|that]", "float32")
ALONE = Row(LARGE, "onnx", "measured", latency_ms=400.0, p95_ms=500.0, joules_per_picture=0.5, idle=0.5, runs=10)


@pytest.fixture
def table() -> BenchmarkTable:
    machine = {"cpu": "A processor", "cores": 2, "torch": "2.15", "date": "today", "libraries": {"openvino": "2026.4"}}
    return BenchmarkTable([EAGER, FAST, SKIPPED, FAILED, ALONE], machine, {"threads": 2})


def test_json_round_trip(table: BenchmarkTable) -> None:
    text = table.to_json()
    assert BenchmarkTable.from_json(text) == table
    assert BenchmarkTable.from_json(text).to_json() == text
    content = json.loads(text)
    assert [entry["runtime"] for entry in content["groups"][0]["runtimes"]][:2] == ["eager", "openvino-int8"]


def test_markdown_holds_every_row_and_its_reasons(table: BenchmarkTable) -> None:
    text = table.to_markdown()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    titles, _, eager, fast, *_ = cells
    assert dict(zip(titles, eager, strict=True))["ms"] == "20.0"
    assert dict(zip(titles, fast, strict=True))["× eager"] == "4.00 (3.90–4.10)"
    assert fast[0] == "**openvino-int8**" and eager[0] == "eager"
    assert {row[0].strip("*") for row in cells} >= {row.runtime for row in table.rows}
    assert "- litert skipped: litert_torch not installed" in text
    assert "- executorch failed: export: no kernel for [this|that]" in text
    assert "kept a core busy while others ran, so that ratios may be off: onnx 50%" in text
    assert "A processor, 2 cores" in text and "2 threads" in text and "openvino 2026.4" in text
    assert "64x96 px, batch 1, 5.5 M parameters, 1.25 GMACs" in text


def test_columns_that_hold_nothing_are_left_out(table: BenchmarkTable) -> None:
    first, second = table.to_markdown().split("### ")[1:]
    assert "mJ /picture" not in first and "| 500.0 |" in second
    assert "of peak" in first and "of peak" not in second


def test_the_terminal_shows_the_same(table: BenchmarkTable) -> None:
    console = Console(file=StringIO())
    table.print(console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "4.00 (3.90–4.10)" in text and "[this|that]" in text and "litert skipped" in text


def test_the_fastest(table: BenchmarkTable) -> None:
    assert table.fastest(SMALL) == FAST
    assert table.fastest(LARGE) == ALONE
    assert BenchmarkTable([SKIPPED]).fastest(SMALL) is None


def test_merging_replaces_groups_and_keeps_the_rest(table: BenchmarkTable) -> None:
    again = replace(EAGER, latency_ms=21.0)
    newer = BenchmarkTable([again], {**table.machine, "date": "tomorrow"}, table.settings)
    merged = table.merged(newer)
    assert merged.rows == [ALONE, again]
    assert merged.machine["date"] == "tomorrow"


@pytest.mark.parametrize("change", [{"machine": {"cpu": "Another"}}, {"settings": {"threads": 4}}])
def test_different_machines_and_settings_are_not_merged(table: BenchmarkTable, change: dict) -> None:
    with pytest.raises(ValueError, match="make no one table"):
        table.merged(replace(table, **change))


def test_panels_stand_in_a_line_per_model() -> None:
    small, large, other = SMALL, replace(SMALL, size=(128, 128)), replace(SMALL, model="timm/b", batch=2)
    assert _places([small, large, other]) == {small: (0, 0), large: (0, 1), other: (1, 2)}
    many = [replace(SMALL, batch=batch) for batch in range(1, 5)]
    assert [*_places(many).values()] == [(0, 0), (0, 1), (0, 2), (1, 0)]


def test_plot(table: BenchmarkTable, tmp_path: Path) -> None:
    write_plot(table, tmp_path / "latency.png")
    with Image.open(tmp_path / "latency.png") as picture:
        assert picture.width > 900  # two panels
    write_plot(BenchmarkTable([SKIPPED]), tmp_path / "nothing.png")
    assert not (tmp_path / "nothing.png").exists()
