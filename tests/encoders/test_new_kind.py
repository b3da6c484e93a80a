"""A new kind of encoder is one file: saved, loaded, fused, counted, evaluated, exported without the library's help."""

import json
import sys
from pathlib import Path

import pytest
import torch
from ghosts import randomised
from new_kind import MirroredEncoder
from torch import nn

from eyespot.deploy import export
from eyespot.deploy.benchmark.timed_models import read_timed_model
from eyespot.distill.cache.committee import teacher_identity
from eyespot.encoders import HeadedEncoder, load_classifier, load_encoder, save_encoder
from eyespot.encoders.kinds import build_encoder, code_needed, config_of
from eyespot.evaluate import evaluate
from eyespot.evaluate.cost import MACS, PARAMETERS, cost
from eyespot.evaluate.finished import FinishedMeasurements
from eyespot.plan.shapes import ShapeWorld
from eyespot.report import model_card

NETWORK = "timm/test_efficientnet?pretrained=false&branches=2"


def new(mirrored=True):
    return randomised(MirroredEncoder(load_encoder(NETWORK), mirrored)).eval()


def pictures(count=2, size=(64, 96)):
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0))


def norms(model):
    return [part for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]


def assert_equal(one, other):
    assert type(one).__qualname__ == type(other).__qualname__
    with torch.no_grad():
        ours, theirs = one.named_outputs(pictures()), other.named_outputs(pictures())
    assert tuple(ours) == tuple(theirs) == one.output_names == other.output_names
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


@pytest.mark.parametrize("mirrored", [True, False])
def test_it_is_saved_and_loaded_with_nothing_registered(tmp_path, monkeypatch, mirrored):
    encoder = new(mirrored)
    folder = save_encoder(encoder, tmp_path / "model", license="mit")
    config = json.loads((folder / "config.json").read_text())
    assert config["eyespot"]["class"] == "new_kind:MirroredEncoder"
    assert config["eyespot"]["mirror"]["network"]["pretrained_cfg"]["license"] == "mit"
    monkeypatch.delitem(sys.modules, "new_kind")
    loaded = load_encoder(f"run/{folder}")
    assert loaded.mirrored is mirrored and (loaded.license, loaded.origin) == ("mit", NETWORK)
    assert_equal(encoder, loaded)
    assert_equal(encoder, load_encoder(f"run/{save_encoder(loaded, tmp_path / 'again')}"))


def test_it_is_fused():
    encoder = new()
    quick = encoder.run_time_form()
    assert norms(encoder) and not norms(quick) and quick.name == f"{NETWORK}&fused=true"
    with torch.no_grad():
        there, here = encoder.named_outputs(pictures()), quick.named_outputs(pictures())
    for name, value in there.items():
        torch.testing.assert_close(here[name], value, rtol=0, atol=1e-4 * float(value.abs().max()))
    assert not norms(build_encoder(json.loads(json.dumps(config_of(quick)))))


def test_what_it_costs_is_all_that_it_gives(tmp_path):
    encoder, network = new(), load_encoder(NETWORK)
    whole, once, alone = (cost(one, 64, timing=False) for one in (encoder, new(mirrored=False), network))
    head = 2 * encoder.patch_dim
    assert whole[PARAMETERS.key] * 1e6 == pytest.approx(alone[PARAMETERS.key] * 1e6 + head + 2)
    cells = (64 // encoder.stride) ** 2
    assert once[MACS.key] == pytest.approx(alone[MACS.key] + cells * head / 1e9)
    assert whole[MACS.key] == pytest.approx(2 * alone[MACS.key] + cells * head / 1e9)
    folder = save_encoder(encoder, tmp_path / "model")
    assert read_timed_model(f"run/{folder}", [64], [1]).groups[0].gmacs == pytest.approx(whole[MACS.key])


def test_it_is_evaluated_and_a_switch_is_another_measurement(tmp_path):
    encoder = new()
    tasks = {"knn": "toybox:16@64", "multitask": "toybox:2@64"}

    def measured():
        return evaluate([encoder], list(tasks), tasks, limit=8, folder=tmp_path).rows[NETWORK]

    twice = measured()
    assert twice["multitask/saliency maxF"] is not None and measured() == twice
    kept = {place: len(list((tmp_path / place).iterdir())) for place in ("features", "measured")}
    encoder.mirrored = False
    once = measured()
    assert once["cost/GMACs"] < twice["cost/GMACs"]
    assert {place: len(list((tmp_path / place).iterdir())) / kept[place] for place in kept} == dict.fromkeys(kept, 2)


def test_the_cache_of_a_teacher_knows_the_switch():
    encoder = new()
    before = teacher_identity(encoder)
    encoder.mirrored = False
    after = teacher_identity(encoder)
    assert before["weights"] == after["weights"] and before != after


def test_a_switch_that_is_called_like_something_else(tmp_path):
    encoder = new()
    encoder.setting = lambda features_only=False: {} if features_only else {"task": 1}
    with pytest.raises(ValueError, match=r"setting\(\) names task something else"):
        FinishedMeasurements(tmp_path).key(encoder, "knn", "data", {})


def test_it_is_exported_with_all_its_outputs(tmp_path):
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is missing: pip install 'eyespot[onnx]'")
    encoder = new()
    done = export(encoder, "onnx", tmp_path / "out", image_size=64, say=lambda line: None)
    names = ("summary", "patches", "task_saliency")
    assert done.check.passed and tuple(entry.output for entry in done.check.agreements) == names
    images = pictures(1, (64, 64))
    found = dict(zip(names, load_encoder(done.spec).session.run(images, names), strict=True))
    with torch.no_grad():
        for name, value in encoder.named_outputs(images).items():
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-3 * float(value.abs().max()))
    facts = json.loads((done.folder / "export.json").read_text())
    assert list(facts["tasks"]) == ["saliency"] and facts["outputs"]["task_saliency"] == [1, 2, 64, 64]


def test_a_head_can_be_put_on_it(tmp_path):
    folder = save_encoder(new(), tmp_path / "model")
    headed = load_classifier(f"run/{folder}", 3, ["a", "b", "c"])
    assert isinstance(headed, HeadedEncoder) and headed.setting() == {"mirrored": True}
    loaded = load_encoder(f"run/{save_encoder(headed, tmp_path / 'headed')}")
    assert loaded.class_names == ["a", "b", "c"] and type(loaded.encoder) is MirroredEncoder
    assert_equal(headed, loaded)


def test_it_is_planned_as_what_it_is(tmp_path):
    folder = save_encoder(new(), tmp_path / "model")
    assert type(ShapeWorld().teacher(f"run/{folder}").encoder) is MirroredEncoder


def test_its_card_says_whose_code_it_needs():
    assert code_needed(new()) == "python/new_kind:MirroredEncoder"
    assert code_needed(load_encoder(NETWORK)) is None
    card = model_card(new(), title="t", summary="s", teachers=[])
    assert "built by code that is not in this folder: `python/new_kind:MirroredEncoder`" in card


def test_a_class_in_a_file(tmp_path):
    (tmp_path / "own.py").write_text(Path(sys.modules["new_kind"].__file__).read_text() + OF_FILE)
    encoder = load_encoder(f"python/{tmp_path / 'own.py'}:make")
    folder = save_encoder(encoder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    assert config["eyespot"]["class"] == f"{tmp_path / 'own.py'}:MirroredEncoder"
    assert_equal(encoder, load_encoder(f"run/{folder}"))


OF_FILE = """

def make():
    from eyespot import load_encoder

    return MirroredEncoder(load_encoder("timm/test_efficientnet?pretrained=false"))
"""


def test_a_class_that_could_not_be_found_again_is_refused_before_anything_is_written(tmp_path):
    class Hidden(MirroredEncoder):
        @classmethod
        def from_config(cls, config):
            return super().from_config(config)

    with pytest.raises(ValueError, match="cannot be found again from a saved folder; put it at the top of a module"):
        save_encoder(Hidden(load_encoder(NETWORK)), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_folder_that_names_something_else_as_its_class(tmp_path):
    folder = save_encoder(new(), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    for named, error, message in (
        ("new_kind:dense_task", ValueError, "which is no eyespot.Encoder"),
        ("new_kind:Renamed", ValueError, "has no 'Renamed'"),
    ):
        config["eyespot"]["class"] = named
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(error, match=message):
            load_encoder(f"run/{folder}")
