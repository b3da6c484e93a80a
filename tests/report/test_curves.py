import json
import math
import xml.etree.ElementTree as ElementTree

import pytest

from eyespot.report.exhibits.curves import overlaid_curves, probe_curves, read_metrics, training_curves


def record(stage, step, **values):
    return {"stage": stage, "step": step, "loss": 2.0 / step, "lr": 1e-3, **values}


def write(path, records, tail=""):
    path.write_text("".join(json.dumps(one) + "\n" for one in records) + tail, encoding="utf-8")
    return path


@pytest.fixture
def metrics(tmp_path):
    terms = {"what/summary": 0.5, "what/patch": 0.25, "word/summary": 0.75}
    lines = [
        {"stage": "stage-1-proxy", "event": "begin"},
        *(record("stage-1-proxy", step, grad_norm=1.0, pictures_per_second=99.0, **terms) for step in (10, 20, 30)),
        *(record("stage-2-student", step) for step in (10, 20)),
    ]
    return write(tmp_path / "metrics.jsonl", lines, '{"stage": "stage-2-student", "step": 30, "lo')


def test_a_line_cut_short_and_events_are_left_out(metrics):
    records = read_metrics(metrics)
    assert {stage: [line["step"] for line in lines] for stage, lines in records.items()} == {
        "stage-1-proxy": [10, 20, 30],
        "stage-2-student": [10, 20],
    }


def test_a_cut_inside_a_character_is_left_out_too(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(json.dumps(record("a", 1)).encode() + b'\n{"stage": "caf\xc3')
    assert list(read_metrics(path)) == ["a"]


def test_a_repeated_step_counts_once_and_the_later_record_wins(tmp_path):
    lines = [record("a", 1), record("a", 2, loss=9.0), record("a", 3), record("a", 2, loss=1.0)]
    records = read_metrics(write(tmp_path / "metrics.jsonl", lines))
    assert [(line["step"], line["loss"]) for line in records["a"]] == [(1, 2.0), (2, 1.0), (3, 2 / 3)]


def test_lines_that_are_no_records_are_left_out(tmp_path):
    path = write(tmp_path / "metrics.jsonl", [record("a", 1)], '[1, 2]\n"text"\n{"stage": "a"}\n\n')
    assert [line["step"] for line in read_metrics(path)["a"]] == [1]


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_metrics(tmp_path / "metrics.jsonl")


def test_one_panel_per_stage_and_one_per_shared_quantity(metrics):
    figures = training_curves(read_metrics(metrics))
    titles = [figure.title for figure in figures]
    assert titles == ["stage-1-proxy", "stage-2-student", "Learning rate", "Gradient norm", "Speed"]
    first = figures[0].image
    assert "what/summary" in first and "word/summary" in first and "total" in first
    assert figures[0].caption == "The loss goes from 0.200 to 0.0667 in 30 steps."


def test_drawings_are_bare_well_formed_svg_in_the_ink_of_the_page(metrics):
    for figure in training_curves(read_metrics(metrics)):
        assert figure.is_svg
        assert "http" not in figure.image
        assert "currentColor" in figure.image
        assert "<text" in figure.image
        ElementTree.fromstring(figure.image.replace("xlink:", ""))


def test_names_are_escaped_and_never_read_as_formulas(tmp_path):
    lines = [record("a", step, **{"<script>$x_1$/summary": 1.0, "b&b/patch": 0.5}) for step in (1, 2)]
    image = training_curves(read_metrics(write(tmp_path / "metrics.jsonl", lines)))[0].image
    assert "<script>" not in image
    assert "&lt;script&gt;$x_1$/summary" in image


def test_drawings_are_the_same_every_time(metrics):
    records = read_metrics(metrics)
    assert training_curves(records) == training_curves(records)


def test_long_runs_are_thinned_and_gaps_survive(tmp_path):
    lines = [record("a", step, loss=math.nan if step < 500 else 1.0) for step in range(1, 20_001)]
    figure = training_curves(read_metrics(write(tmp_path / "metrics.jsonl", lines)))[0]
    assert len(figure.image) < 40_000
    assert "from 1.00 to 1.00 in 20,000 steps" in figure.caption


def test_losses_that_are_negative_or_never_finite_do_not_crash(tmp_path):
    lines = [record("a", 1, loss=-1.0), record("a", 2, loss=3.0), record("b", 1, loss=math.nan)]
    figures = training_curves(read_metrics(write(tmp_path / "metrics.jsonl", lines)))
    assert [figure.title for figure in figures] == ["a", "Learning rate"]


def test_nothing_gives_nothing():
    assert training_curves({}) == []


def steps(count, **values):
    return [{"step": step, **values} for step in range(1, count + 1)]


def test_several_runs_share_a_panel_per_stage_and_quantity():
    runs = {
        "x": {"a": steps(3, loss=2.0, lr=0.1), "b": steps(2, loss=1.0)},
        "y": {"a": steps(5, loss=3.0, lr=0.2, pictures_per_second=9.0)},
    }
    figures = {figure.title: figure for figure in overlaid_curves(runs)}
    assert list(figures) == ["a, loss", "b, loss", "a, learning rate", "a, pictures per second"]
    assert figures["a, loss"].alt == "a, loss over steps. At the end: x 2.00, y 3.00."
    assert ">x<" in figures["b, loss"].image and ">y<" not in figures["b, loss"].image


def test_lines_of_one_panel_differ_in_colour_and_dash():
    image = overlaid_curves({name: {"a": steps(3, loss=1.0)} for name in "xyz"})[0].image
    assert image.count("stroke-dasharray") >= 2


def test_probes_have_a_panel_per_metric_in_its_own_unit():
    records = {"a": steps(2, **{"knn/accuracy": 0.25, "depth/RMSE": 0.5, "seconds": 1.0})}
    figures = probe_curves({"x": records})
    assert [figure.title for figure in figures] == ["depth, RMSE", "knn, accuracy"]
    assert "RMSE, m" in figures[0].image and "accuracy, %" in figures[1].image
    several = probe_curves({"x": records, "y": {"a": steps(3, **{"knn/accuracy": 0.5})}})
    assert [figure.title for figure in several] == ["depth, a, RMSE, m", "knn, a, accuracy, %"]
    assert several[1].alt.endswith("At the end: x 25.0, y 50.0.")
    assert probe_curves({}) == []
