"""The verbs that look at models and measure them, and the small ones."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from eyespot.evaluate import TASKS
from eyespot.recipes.eupe.config import STAGE_1


@pytest.fixture
def folder(eupe_folder: Path) -> Path:
    return eupe_folder


@pytest.fixture
def run(eupe_run: Path) -> Path:
    return eupe_run


# Looking and measuring


def test_visualize_writes_a_picture(eyespot: Any, run: Path, folder: Path, tmp_path: Path) -> None:
    pictures = [folder / "pictures/00.jpg", folder / "pictures/01.png"]
    answer = eyespot("visualize", f"run/{run}", *pictures, "--output", tmp_path / "seen.png", "--size", "64")
    assert answer.code == 0 and "seen.png" in answer.out
    with Image.open(tmp_path / "seen.png") as sheet:
        assert sheet.format == "PNG" and min(sheet.size) > 100


def test_visualize_puts_several_models_side_by_side(eyespot: Any, run: Path, folder: Path, tmp_path: Path) -> None:
    widths = []
    for name, more in (("one", []), ("two", ["--models", f"run/{run}/{STAGE_1}"])):
        file = tmp_path / f"{name}.png"
        eyespot("visualize", f"run/{run}", folder / "pictures/00.jpg", *more, "--output", file, "--size", "32")
        with Image.open(file) as sheet:
            widths.append(sheet.width)
    assert widths[1] > widths[0]


@pytest.mark.parametrize(
    ("picture", "output", "message"),
    [("nowhere.jpg", "seen.png", "nowhere.jpg"), ("pictures/00.jpg", "seen.jpg", "should end in .png")],
)
def test_visualize_refuses(eyespot: Any, run: Path, folder: Path, picture: str, output: str, message: str) -> None:
    answer = eyespot("visualize", f"run/{run}", folder / picture, "--output", folder / output, "--size", "32")
    assert answer.code == 1 and message in answer.err
    assert not (folder / output).exists()


def test_evaluate_prints_a_table_and_writes_three_files(eyespot: Any, run: Path, tmp_path: Path) -> None:
    models = [f"run/{run}", "timm/test_vit?pretrained=false"]
    arguments = ["--tasks", "knn", "--data", "toybox:20@32", "--size", "32", "--output", tmp_path / "results"]
    answer = eyespot("evaluate", *models, *arguments)
    assert answer.code == 0
    assert "knn" in answer.out and all(model in answer.out for model in models)
    results = json.loads((tmp_path / "results/results.json").read_text())
    assert list(results["rows"]) == models
    assert all(0 <= row["knn/accuracy"] <= 1 for row in results["rows"].values())
    assert results["settings"]["data"] == {"knn": "toybox:20@32"}
    assert len((tmp_path / "results/results.csv").read_text().splitlines()) == 4  # with the floor
    assert len((tmp_path / "results/results.md").read_text().splitlines()) == 5


def test_evaluate_takes_a_folder_for_each_task(eyespot: Any, tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name, colour in (("red", (250, 10, 10)), ("blue", (10, 10, 250))):
            place = tmp_path / "colours" / split / name
            place.mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (32, 32), tuple(value - number for value in colour)).save(place / f"{number}.png")
    model = "timm/test_vit?pretrained=false"
    answer = eyespot(
        "evaluate", model, "--data", f"knn={tmp_path / 'colours'}", "--size", "32", "--output", tmp_path / "out"
    )
    assert answer.code == 0, answer.err
    row = json.loads((tmp_path / "out/results.json").read_text())["rows"][model]
    assert {key.partition("/")[0] for key in row} == {"cost", "knn"}  # only the task that has data


def test_help_names_every_task(eyespot: Any) -> None:
    words = eyespot("evaluate", "--help").out.replace("│", " ").replace(",", " ").replace(".", " ").split()
    assert set(TASKS) <= set(words)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "kn"], "no task 'kn'; did you mean 'knn'?"),
        (["--data", "toybox:20@32", "knn=x"], "data takes one source for all tasks, or TASK=FOLDER for each"),
        (["--data", "somewhere"], "give each task its own folder"),
        (["--data", "knn=nowhere"], "nowhere"),
    ],
)
def test_evaluate_refuses(eyespot: Any, arguments: list[str], message: str) -> None:
    answer = eyespot("evaluate", "timm/test_vit?pretrained=false", *arguments)
    assert answer.code == 1 and message in answer.err


def test_report_shows_runs_and_evaluations_on_one_page(eyespot: Any, run: Path, folder: Path, tmp_path: Path) -> None:
    measured = ["--tasks", "knn", "--data", "toybox:20@32", "--size", "32", "--output", tmp_path / "measured"]
    assert eyespot("evaluate", f"run/{run}", "timm/test_vit?pretrained=false", *measured).code == 0
    page = tmp_path / "report.html"
    seen = ["--pictures", folder / "pictures/00.jpg", folder / "pictures/01.png", "--size", "32"]
    answer = eyespot("report", run, tmp_path / "measured", "--output", page, *seen)
    assert answer.code == 0, answer.err
    assert str(page) in answer.out
    text = page.read_text()
    assert all(f'id="{section}"' in text for section in ("results", "figures", "training", "licences", "config"))


def test_report_refuses_what_is_neither(eyespot: Any, tmp_path: Path) -> None:
    answer = eyespot("report", tmp_path, "--output", tmp_path / "report.html")
    assert answer.code == 1 and "neither a training run" in answer.err and "eyespot evaluate --output" in answer.err
    assert list(tmp_path.iterdir()) == []


def test_push_hands_its_arguments_on_and_says_where_the_student_is(
    eyespot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def upload(*arguments: Any, say: Any, **options: Any) -> str:
        given.append((arguments, options))
        say("me/tiny is public.")
        return "https://hub/me/tiny"

    monkeypatch.setattr("eyespot.deploy.push", upload)
    answer = eyespot("push", tmp_path, "me/tiny", "--private", "--revision", "trial", "--message", "First")
    assert given == [((tmp_path, "me/tiny"), {"private": True, "revision": "trial", "message": "First"})]
    assert answer.out.splitlines() == ["me/tiny is public.", "The student is at https://hub/me/tiny"]


def test_push_refuses_what_is_no_run_and_names_the_way_to_a_token(
    eyespot: Any, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eyespot.deploy.hub.get_token", lambda: None)
    for place, message in ((tmp_path, "has the run finished?"), (run, "hf auth login")):
        answer = eyespot("push", place, "me/tiny")
        assert answer.code == 1 and message in answer.err and "Traceback" not in answer.err


def test_toybox_writes_a_sheet(eyespot: Any, tmp_path: Path) -> None:
    answer = eyespot("toybox", "--count", "3", "--size", "32", "--first", "5", "--output", tmp_path / "scenes.png")
    assert answer.code == 0 and "scenes.png" in answer.out
    with Image.open(tmp_path / "scenes.png") as sheet:
        assert sheet.format == "PNG" and sheet.width >= 3 * 32


def test_quickstart_hands_its_arguments_on(eyespot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    class Table:
        def print(self) -> None:
            print("the table")

    monkeypatch.setattr("eyespot.quickstart.quickstart", lambda *arguments: given.append(arguments) or Table())
    answer = eyespot("quickstart", "--preset", "short", "--output", tmp_path / "quick")
    assert given == [(tmp_path / "quick", "short")]
    assert "the table" in answer.out and str(tmp_path / "quick/report.html") in answer.out
    assert eyespot("quickstart", "--preset", "shorter").code == 2 and len(given) == 1
