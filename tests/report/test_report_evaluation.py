from dataclasses import replace

import pytest
import torch
from report_toys import Blocks, table, teacher

from eyespot.data.sets import ToyboxConfig, ToyboxData
from eyespot.evaluate import evaluate
from eyespot.evaluate.results import ResultTable
from eyespot.report import write_evaluation_report
from eyespot.report.pages.evaluation import exhibits_for, look_through, sample_pictures, table_facts

TASKS = ("knn", "segmentation", "depth", "normals", "correspondence", "reading")


@pytest.fixture(scope="module")
def models():
    made = {"plain": Blocks(8, name="plain", license="mit").eval(), "fixed": Blocks(16, (32, 32), name="fixed").eval()}
    made["plain"].lineage = [teacher("onnx/one.onnx", "mit"), teacher("onnx/two.onnx", "apache-2.0")]
    return made


@pytest.fixture(scope="module")
def toybox():
    return ToyboxConfig(train=12, val=6, pairs=3, size=32)


@pytest.fixture(scope="module")
def results(models, toybox):
    return evaluate(models, TASKS, toybox, size=32)


def test_a_page_shows_table_radar_pictures_and_examples(models, toybox, results, tmp_path):
    calls = []
    path = write_evaluation_report(
        tmp_path / "report.html",
        results,
        models=models,
        data=toybox,
        folder=tmp_path / "kept",
        title="Two toys",
        progress=lambda what, done, total: calls.append((what, done, total)),
    )
    text = path.read_text(encoding="utf-8")
    assert all(
        f'<section id="{name}">' in text for name in ("results", "radar", "figures", "examples", "tasks", "licences")
    )
    for title in ("What each encoder sees", "several input sizes", "Length of the patch tokens", "Nearest neighbours"):
        assert title in text
    for title in ("Semantic segmentation", "<h3>Depth</h3>", "Surface normals", "Point matching"):
        assert title in text
    assert text.count("Nearest neighbours</h3>") == 1  # knn and reading are both classification
    assert "every teacher is under a permissive licence (apache-2.0 and mit)" in text
    assert [done for _, done, _ in calls] == [0, 1] and "plain" in calls[0][0]
    assert {file.name for file in (tmp_path / "kept").iterdir()} == {"features", "shown"}


def test_equal_calls_make_equal_pages_and_train_no_probe_twice(models, toybox, results, tmp_path, monkeypatch):
    first, again = tmp_path / "first.html", tmp_path / "again.html"
    monkeypatch.setattr("eyespot.report.pages.evaluation.machine_info", dict)
    write_evaluation_report(first, results, models=models, data=toybox, folder=tmp_path / "kept")

    def refuse(*_):
        raise AssertionError("a probe was trained")

    monkeypatch.setattr("eyespot.report.exhibits.dense.Depth.quick_head", refuse)
    write_evaluation_report(again, results, models=models, data=toybox, folder=tmp_path / "kept")
    assert again.read_bytes() == first.read_bytes()


def test_without_pictures_and_data_no_model_is_needed(tmp_path):
    path = write_evaluation_report(tmp_path / "report.html", table())
    text = path.read_text(encoding="utf-8")
    assert 'id="results"' in text and 'id="figures"' not in text and 'id="licences"' not in text


def test_pictures_alone_are_enough_to_look_at(models, tmp_path):
    path = write_evaluation_report(
        tmp_path / "r.html", table(("plain", "fixed")), models=models, pictures=torch.rand(1, 3, 32, 32)
    )
    text = path.read_text(encoding="utf-8")
    assert 'id="figures"' in text and 'id="examples"' not in text


def test_rows_are_taken_as_specs_and_one_that_cannot_be_loaded_is_left_out_with_a_note(tmp_path):
    names = ("timm/test_vit?pretrained=false", "onnx/nowhere.onnx")
    path = write_evaluation_report(tmp_path / "r.html", table(names), pictures=torch.rand(1, 3, 64, 64))
    text = path.read_text(encoding="utf-8")
    assert "nowhere is not in the pictures, because it could not be loaded" in text
    assert "test_vit, scene 1" in text


def test_models_of_which_none_can_be_loaded_are_an_error():
    with pytest.raises(ValueError, match=r"a is not in the pictures[^\n]*\n?b is not"):
        look_through({"onnx/a.onnx": "onnx/a.onnx", "onnx/b.onnx": "onnx/b.onnx"}, {}, torch.rand(1, 3, 8, 8), {})


def test_licences_are_inherited_and_models_of_one_origin_share_a_box(models):
    twin = Blocks(8, name="twin", license="other")
    twin.lineage = list(models["plain"].lineage)
    unknown = Blocks(8, name="unknown")
    unknown.lineage = [teacher("onnx/secret.onnx", None)]
    shown = look_through({**models, "twin": twin, "unknown": unknown}, {}, torch.rand(1, 3, 32, 32), {"size": 32})
    everyone, plain, secret = shown.licences
    assert [(label, facts["licence"]) for label, facts in everyone.rows] == [
        ("plain", "apache-2.0 and mit"),
        ("fixed", None),
        ("twin", "apache-2.0 and mit"),
        ("unknown", None),
    ]
    assert everyone.verdict is None
    assert plain.title == "plain, twin: learnt from" and plain.verdict.commercial_use is True
    assert secret.title == "unknown: learnt from" and secret.verdict.commercial_use is None


def test_sizes_follow_the_evaluation(models):
    free = Blocks(8, name="free")
    look_through({"free": free}, {}, torch.rand(1, 3, 32, 48), {"size": (64, 96)})
    assert free.seen == [(64, 96), (32, 48), (128, 192)]


def test_pictures_are_taken_in_turn_from_different_data(toybox):
    data = ToyboxData(toybox)
    opened = {"knn": data.classification(), "depth": data.depth(), "correspondence": data.matching()}
    assert sample_pictures(opened, 40).shape == (4, 3, 40, 40)  # all three have the same pictures
    assert sample_pictures({}, 40) is None
    assert sample_pictures({"retrieval": data.captions()}, 40) is None


def test_data_that_nothing_can_show_make_no_exhibit(toybox):
    data = ToyboxData(toybox)
    assert exhibits_for({"retrieval": data.captions(), "geometry": data.pictures()}, 0, {}) == []
    names = [exhibit.name for exhibit in exhibits_for({"knn": data.classification(), "depth": data.depth()}, 0, {})]
    assert names == ["neighbours", "depth"]


def test_data_without_training_labels_have_no_neighbours(toybox):
    naming = ToyboxData(toybox).classification()
    zero_shot = replace(naming, train=replace(naming.train, labels=torch.full_like(naming.train.labels, -1)))
    found = exhibits_for({"zero_shot": zero_shot, "knn": naming}, 0, {})
    assert [exhibit.data for exhibit in found] == [naming]


def test_the_headline_counts_each_task_once_by_its_first_metric():
    assert table_facts(table(("a", "b"))) == {"models": 2, "tasks": 3, "leads most often": "a, in 2 of 3"}
    single = replace(table(), rows={"a": {}})
    assert table_facts(single) == {"models": 1, "tasks": 3}
    assert table_facts(ResultTable([], {})) == {"models": 0, "tasks": 0}
