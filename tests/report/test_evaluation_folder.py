"""What `eyespot evaluate` does, called from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report_toys import Blocks

from eyespot.data.sets import ToyboxConfig, ToyboxData
from eyespot.evaluate import ResolutionCurve, ResultTable, evaluate
from eyespot.evaluate.run_tasks import open_all
from eyespot.report import evaluate_and_report

TOYBOX = ToyboxConfig(train=12, val=6, pairs=3, size=32)


@pytest.fixture
def models() -> dict[str, Blocks]:
    return {name: Blocks(dim, name=name, license="mit").eval() for name, dim in (("small", 8), ("large", 16))}


def test_a_folder_holds_page_tables_and_curves(models: dict[str, Blocks], tmp_path: Path) -> None:
    found = evaluate_and_report(
        models, ["knn", "correspondence"], TOYBOX, 32, sizes=(32, 64), timing=False, output=tmp_path
    )
    assert found.table.rows == evaluate(models, ["knn", "correspondence"], TOYBOX, 32).rows
    assert list(found.curves) == ["knn", "correspondence"] and len(found.tables) == 3
    assert ResultTable.from_json((tmp_path / "results.json").read_text()) == found.table
    assert (tmp_path / "results.csv").is_file() and (tmp_path / "results.md").is_file()
    for task, curve in found.curves.items():
        assert ResolutionCurve.from_json((tmp_path / f"resolution-{task}.json").read_text()) == curve
    page = (tmp_path / "report.html").read_text()
    assert all(f'<section id="{part}">' in page for part in ("results", "figures", "examples", "licences"))
    assert "Nearest neighbours" in page and "Point matching" in page and "small" in page and "large" in page


def test_without_a_folder_nothing_is_drawn(models: dict[str, Blocks], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("figures were made")

    monkeypatch.setattr("eyespot.report.pages.evaluation.EvaluationFigures.add", refuse)
    assert set(evaluate_and_report(models, ["knn"], TOYBOX, 32).table.rows) == {"small", "large"}


def test_models_are_loaded_and_data_opened_once_for_numbers_and_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Any] = []

    def load(spec: str) -> Blocks:
        done.append(spec)
        return Blocks(8, name=spec).eval()

    def open_data(*arguments: Any) -> dict[str, Any]:
        done.append("data")
        return open_all(*arguments)

    monkeypatch.setattr("eyespot.encoders.load_encoder", load)
    for module in ("evaluate.run_tasks", "report.pages.evaluation"):
        monkeypatch.setattr(f"eyespot.{module}.open_all", open_data)
    evaluate_and_report(["timm/one", "timm/two"], ["knn", "segmentation"], TOYBOX, 32, output=tmp_path)
    assert done == ["timm/one", "data", "timm/two"]  # a misspelt first name is answered before data are opened
    assert "Nearest neighbours" in (tmp_path / "report.html").read_text()


def test_tasks_are_those_that_the_data_name(models: dict[str, Blocks]) -> None:
    data = {"correspondence": ToyboxData(TOYBOX).matching()}
    columns = evaluate_and_report(models, data=data, size=32, timing=False).table.columns
    assert {column.task for column in columns} == {"cost", "correspondence"}
