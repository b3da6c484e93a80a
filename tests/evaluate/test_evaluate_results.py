import csv
import io

from rich.console import Console

from eyespot.evaluate import Column, Metric, ResultTable

ACCURACY = Column("knn", Metric("accuracy"))
RMSE = Column("depth", Metric("RMSE", unit="m", higher_is_better=False))
EXTRA = Column("depth", Metric("AbsRel", unit="", higher_is_better=False, headline=False))


def table() -> ResultTable:
    rows = {
        "small|one": {"knn/accuracy": 0.5, "depth/RMSE": 0.25, "depth/AbsRel": 0.1},
        "big[1]": {"knn/accuracy": 0.75, "depth/RMSE": 0.5, "depth/AbsRel": None},
        "lame": {"knn/accuracy": float("nan")},
    }
    return ResultTable([ACCURACY, RMSE, EXTRA], rows, {"seed": 0})


def test_best_knows_which_end_is_good_and_skips_unknown_values():
    assert table().best(ACCURACY) == {"big[1]"}
    assert table().best(RMSE) == {"small|one"}
    assert table().best(EXTRA) == set()


def test_ties_are_all_best():
    tied = ResultTable([ACCURACY], {"a": {"knn/accuracy": 0.5}, "b": {"knn/accuracy": 0.5}})
    assert tied.best(ACCURACY) == {"a", "b"}


def test_markdown_marks_the_best():
    lines = table().to_markdown().splitlines()
    assert lines[0] == "| model | knn accuracy % ↑ | depth RMSE m ↓ |"
    assert lines[2] == "| small\\|one | 50.0 | **0.250** |"
    assert lines[3] == "| big[1] | **75.0** | 0.500 |"
    assert lines[4] == "| lame | – | – |"
    assert "AbsRel ↓" in table().to_markdown(detailed=True)


def test_json_round_trip():
    back = ResultTable.from_json(table().to_json())
    assert back.columns == table().columns and back.settings == {"seed": 0}
    assert back.rows["big[1]"] == table().rows["big[1]"]
    assert back.rows["lame"] == {"knn/accuracy": None}


def test_csv_holds_every_column_in_full_precision():
    precise = ResultTable([ACCURACY, EXTRA], {"a,b": {"knn/accuracy": 1 / 3}})
    rows = list(csv.reader(io.StringIO(precise.to_csv())))
    assert rows[0] == ["model", "knn/accuracy", "depth/AbsRel"]
    assert rows[1][0] == "a,b" and float(rows[1][1]) == 1 / 3 and rows[1][2] == ""


def test_print_shows_names_with_brackets_and_bold():
    console = Console(width=100, record=True, force_terminal=True, file=io.StringIO())
    table().print(console=console)
    text = console.export_text(styles=True)
    assert "big[1]" in text and "\x1b[1m75.0" in text and "AbsRel" not in text
