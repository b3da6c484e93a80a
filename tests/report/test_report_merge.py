from eyespot.evaluate.results import Column, Metric, ResultTable
from eyespot.report import merge_tables
from eyespot.report.pages.merge import differing

KNN, DEPTH, MS = Column("knn", Metric("accuracy")), Column("depth", Metric("RMSE")), Column("cost", Metric("ms"))


def table(columns, rows, **settings):
    return ResultTable(
        columns, {name: dict(zip((c.key for c in columns), row, strict=True)) for name, row in rows.items()}, settings
    )


def test_a_single_table_stays_as_it_is():
    one = table([KNN], {"a": [0.5]}, seed=0)
    assert merge_tables({"run": one}) is one
    assert differing({"run": one}) == []


def test_rows_of_one_name_and_other_values_are_named_after_their_runs():
    merged = merge_tables(
        {
            "x": table([KNN], {"expert": [0.9], "student": [0.5]}),
            "y": table([KNN], {"expert": [0.9], "student": [0.6], "other": [0.1]}),
        }
    )
    assert {row: values[KNN.key] for row, values in merged.rows.items()} == {
        "expert": 0.9,
        "x: student": 0.5,
        "y: student": 0.6,
        "y: other": 0.1,
    }


def test_a_spec_is_one_model_wherever_it_was_measured():
    merged = merge_tables(
        {"x": table([KNN, MS], {"timm/a": [0.9, 5.0]}), "y": table([DEPTH, MS], {"timm/a": [0.3, 6.0]})}
    )
    assert merged.rows == {"timm/a": {KNN.key: 0.9, MS.key: 5.0, DEPTH.key: 0.3}}
    assert [column.key for column in merged.columns] == [KNN.key, MS.key, DEPTH.key]


def test_a_plain_name_is_one_model_only_if_values_say_so():
    merged = merge_tables({"x": table([KNN], {"student": [0.9]}), "y": table([DEPTH], {"student": [0.3]})})
    assert list(merged.rows) == ["x: student", "y: student"]


def test_a_spec_with_other_values_is_two_rows():
    merged = merge_tables({"x": table([KNN], {"timm/a": [0.9]}), "y": table([KNN], {"timm/a": [0.8]})})
    assert list(merged.rows) == ["x: timm/a", "y: timm/a"]


def test_settings_are_merged_and_differences_named():
    tables = {
        "x": table([KNN], {}, seed=0, data={"knn": "a", "depth": "d"}),
        "y": table([KNN], {}, seed=0, limit=5, data={"knn": "b"}),
    }
    assert merge_tables(tables).settings == {"seed": 0, "limit": 5, "data": {"knn": {"x": "a", "y": "b"}, "depth": "d"}}
    assert differing(tables) == ["data.knn"]
