import json

import pytest
import torch
import yaml
from PIL import Image
from report_toys import curve, table, teacher

from eyespot.encoders import load_encoder, save_encoder
from eyespot.report import write_folder_report
from eyespot.report.pages.folders import read_folder

CARD = "---\nlicense: mit\n---\n\n# A student\n\nLearnt from one.\n\n## The model\n"


def write_run(folder, seed=0, results=None, licence="mit"):
    """What a finished run leaves behind."""
    folder.mkdir(parents=True)
    config = {"teachers": ["timm/test_vit2?pretrained=false"], "proxy": None, "seed": seed}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    lines = [
        {"stage": "stage-2-student", "step": step, "loss": 1.0 / step, "lr": 0.1, "seconds": 30.0 * step}
        for step in (1, 2)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    probe = {"stage": "stage-2-student", "step": 2, "knn/accuracy": 0.5, "seconds": 1.0, "skipped": 0}
    (folder / "probes.jsonl").write_text(json.dumps(probe) + "\n")
    if results is not None:
        (folder / "results.json").write_text(results.to_json())
    torch.manual_seed(seed)
    details = {"teachers": [teacher("onnx/expert.onnx", licence)], "machine": {"cpu": f"cpu {seed}"}}
    save_encoder(
        load_encoder("timm/test_vit?pretrained=false"), folder / "student", license="other", details=details, card=CARD
    )
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    other = table(("expert", "student"))
    other.rows["student"]["knn/accuracy"] = 0.25
    other.settings["options"] = {"knn": {"k": 5}}
    return (
        write_run(folder / "a" / "x", 0, table(("expert", "student"))),
        write_run(folder / "b" / "x", 1, other, "cc-by-nc-4.0"),
    )


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    (folder / "results.json").write_text(table(("timm/test_vit?pretrained=false", "onnx/gone.onnx")).to_json())
    (folder / "resolution-knn.json").write_text(curve().to_json())
    return folder


def page(tmp_path, *folders, **more):
    return write_folder_report(tmp_path / "report.html", folders, **more).read_text(encoding="utf-8")


def test_a_single_run_tells_its_own_story(runs, tmp_path):
    text = page(tmp_path, runs[0])
    assert "<title>A student</title>" in text and "Learnt from one." in text
    for words in ("1.0 min", "test_vit", "may be used commercially", "cpu 0", "knn, accuracy", "seed: 0"):
        assert words in text
    parameters = sum(weight.numel() for weight in load_encoder(f"run/{runs[0]}").parameters())
    assert f"{parameters / 1e3:.3g} k" in text


def test_several_runs_share_table_and_curves_and_keep_their_licences(runs, tmp_path):
    text = page(tmp_path, *runs)
    assert "a/<wbr>x: student" in text and "b/<wbr>x: student" in text
    assert text.count('<th scope="row">expert</th>') == 2  # in the table and in the details of one task
    assert "<h3>stage-2-student, loss</h3>" in text
    assert "a/x: learnt from" in text and "b/x: learnt from" in text
    assert text.count("may be used commercially") == text.count("may not be used commercially") == 1
    assert "cpu 0" in text and "cpu 1" in text
    assert "2 training runs side by side." in text
    assert "measured under different settings (options.knn.k)" in text
    assert text.count("everything that defines it") == 2


def test_an_evaluation_shows_its_table_and_its_curves(evaluation, tmp_path):
    text = page(tmp_path, evaluation)
    assert 'id="results"' in text and 'id="sizes"' in text and 'id="training"' not in text
    assert ">test_<wbr>vit</th>" in text and "1 evaluation." in text


def test_pictures_are_shown_to_all_models_that_can_be_loaded(runs, evaluation, tmp_path):
    file = tmp_path / "photo.png"
    Image.effect_noise((80, 64), 80).convert("RGB").save(file)
    text = page(tmp_path, *runs, evaluation, pictures=[file], size=64)
    for label in ("test_vit2", "a/x: student", "b/x: student", "test_vit"):
        assert f'alt="{label}, scene 1"' in text
    assert "gone is not in the pictures" in text
    assert "test_vit at 128 px, scene 1" in text


def test_a_run_that_is_not_finished_has_a_page_too(tmp_path):
    folder = tmp_path / "young"
    folder.mkdir()
    (folder / "config.yaml").write_text("teachers: []\nproxy: run/elsewhere\n")
    contents = read_folder(folder)
    assert contents.run is not None and contents.run.teachers == [] and contents.models == {"proxy": "run/elsewhere"}
    assert 'id="config"' in page(tmp_path, folder)


@pytest.mark.parametrize("stages", [(), ("stage-1-proxy",)])
def test_the_proxy_of_a_run_is_its_own_stage_once_that_is_finished(tmp_path, stages):
    (tmp_path / "config.yaml").write_text("teachers: []\nproxy: timm/resnet18\n")
    for stage in stages:
        (tmp_path / stage / "model").mkdir(parents=True)
    models = read_folder(tmp_path).models
    assert models == ({"proxy": f"run/{tmp_path}/stage-1-proxy"} if stages else {})


def test_what_is_neither_run_nor_evaluation_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither a training run"):
        write_folder_report(tmp_path / "report.html", [tmp_path])
    assert not (tmp_path / "report.html").exists()


def test_no_folder_and_the_same_one_twice_are_refused(runs, tmp_path):
    with pytest.raises(ValueError, match="at least one folder"):
        write_folder_report(tmp_path / "report.html", [])
    with pytest.raises(ValueError, match="named twice"):
        write_folder_report(tmp_path / "report.html", [runs[0], runs[0] / ".." / "x"])
