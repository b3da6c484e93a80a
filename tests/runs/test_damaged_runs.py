"""Damaged files of ours are named, or what they held is made again with a word; found by the fuzz."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from eyespot.distill.cache import CacheError
from eyespot.distill.cache.store import TeacherCache
from eyespot.encoders import load_encoder
from eyespot.encoders.text.embeddings import load_text_embeddings, save_text_embeddings
from eyespot.engine.checkpoint import CheckpointError, Checkpoints
from eyespot.engine.metrics import read_lines
from eyespot.engine.processes import Processes
from eyespot.engine.run import RunFolder
from eyespot.evaluate.finished import FinishedMeasurements
from eyespot.files import read_array, read_json, read_yaml, understood
from eyespot.report.pages.folders import read_folder

STORED = Path(__file__).resolve().parents[1] / "old_runs"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    shutil.copytree(STORED / "recipes/vanilla_kd", tmp_path / "run")
    return tmp_path / "run"


# Readers


@pytest.mark.parametrize("content", [b"{", b"<html>", b"\xff\xfe\x00", b""])
def test_json_and_yaml_that_are_none_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json "):
        read_json(tmp_path / "a.json")
    (tmp_path / "b.yaml").write_bytes(b"a: [1\nb: }")
    with pytest.raises(ValueError, match=r"b\.yaml is not YAML"):
        read_yaml(tmp_path / "b.yaml")


@pytest.mark.parametrize(
    "error", [KeyError("a"), TypeError("a"), ValueError("a"), AttributeError("a"), RuntimeError("a")]
)
def test_whatever_content_raises_names_the_file(error: Exception) -> None:
    with (
        pytest.raises(ValueError, match=r"^a\.json cannot be read.*\(.*a.*\); delete it$"),
        understood("a.json", "delete it"),
    ):
        raise error


def test_what_the_disk_says_goes_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), understood(tmp_path / "a.json"):
        (tmp_path / "a.json").read_text()
    with pytest.raises(FileNotFoundError):
        read_array(tmp_path / "a.npy")


# Models


@pytest.mark.parametrize("section", [None, [], {"spec": 3}, {"spec": "timm/test_vit", "class_names": 3}])
def test_a_models_configuration_of_another_kind(run: Path, section: object) -> None:
    file = run / "student" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eyespot": section}))
    with pytest.raises(ValueError, match=r"student/config\.json"):
        load_encoder(f"run/{run}")


def test_damaged_adapters_are_named(tmp_path: Path) -> None:
    shutil.copytree(STORED / "recipes/eupe/student", tmp_path / "model")
    (tmp_path / "model/adapters.safetensors").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"adapters\.safetensors cannot be read as weights"):
        load_encoder(f"run/{tmp_path / 'model'}")


@pytest.mark.parametrize("option", ["img_size=-1", "patch_size=0", "patch_size=x", "num_classes=x", "num_classes=-1"])
def test_options_that_a_model_cannot_have_name_it(option: str) -> None:
    with pytest.raises(ValueError, match=rf"timm/test_vit(\?pretrained=false&{option}|: num_classes)"):
        load_encoder(f"timm/test_vit?pretrained=false&{option}")


def test_embeddings_of_another_kind(tmp_path: Path) -> None:
    file = save_text_embeddings(tmp_path / "a.safetensors", ["one"], torch.ones(1, 3))
    file.write_bytes(file.read_bytes().replace(b'[\\"one\\"]', b"[[\\one\\]]"))
    with pytest.raises(ValueError, match=r"a\.safetensors"):
        load_text_embeddings(file)
    np.save(tmp_path / "a.npy", np.array([["x"]]))
    with pytest.raises(ValueError, match=r"a\.npy holds <U1 \(1, 1\), embeddings are numbers"):
        load_text_embeddings(tmp_path / "a.npy", ["one"])
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00\x0a\x00{'descr': (")
    with pytest.raises(ValueError, match=r"a\.npy cannot be read as an array"):
        load_text_embeddings(tmp_path / "a.npy", ["one"])


# Runs


def test_a_runs_configuration_that_is_no_yaml(run: Path) -> None:
    (run / "config.yaml").write_text("a: [1\nb: }")
    for read in (lambda: RunFolder(run, {}), lambda: read_folder(run)):
        with pytest.raises(ValueError, match=r"config\.yaml is not YAML"):
            read()


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"columns": [], "rows": {"a": 3}, "settings": {}}', '{"columns": [{}]}']
)
def test_results_of_another_kind(run: Path, content: str) -> None:
    (run / "results.json").write_text(content)
    with pytest.raises(ValueError, match=r"results\.json cannot be read.*measure again, into a new folder"):
        read_folder(run)


@pytest.mark.parametrize("content", ["{", "[]", '{"task": "knn"}'])
def test_curves_of_another_kind(run: Path, content: str) -> None:
    (run / "resolution.json").write_text(content)
    with pytest.raises(ValueError, match=r"resolution\.json cannot be read"):
        read_folder(run)


def test_weights_that_a_report_counts(run: Path) -> None:
    (run / "student/model.safetensors").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        read_folder(run)


def test_damaged_lines_of_metrics_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"stage": "a", "step": 1}\n{"stage": 3}\n<html>\n{"stage": "a", "step": 2}\n{"stage": "a", "st')
    with pytest.warns(UserWarning, match=r"metrics\.jsonl: 2 lines are damaged and left out"):
        assert [line["step"] for line in read_lines(file)] == [1, 2]


@pytest.mark.parametrize("facts", ["[]", '{"format": 2}', '{"format": 2, "signature": 3}', '{"signature": []}'])
def test_facts_of_a_checkpoint_of_another_kind(tmp_path: Path, facts: str) -> None:
    place = tmp_path / "step-00000001.ckpt"
    place.mkdir()
    (place / "training.json").write_text(facts)
    with pytest.raises(CheckpointError, match=r"step-00000001\.ckpt"):
        Checkpoints(tmp_path).find(Processes(), {"a": 1})


# What was kept


@pytest.mark.parametrize("content", ["{", "[]", '{"values": 3}', '{"values": {"a": "x"}}', "<html>"])
def test_a_damaged_measurement_is_made_again_with_a_word(tmp_path: Path, content: str) -> None:
    finished = FinishedMeasurements(tmp_path)
    finished.keep("key", "model", "knn", {"a": 0.5})
    assert finished.find("key") == {"a": 0.5}
    (tmp_path / "key.json").write_text(content)
    with pytest.warns(UserWarning, match=r"key\.json cannot be read.*it is measured again"):
        assert finished.find("key") is None


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    shutil.copytree(STORED / "cached/cache/what", tmp_path / "what")
    return tmp_path / "what"


def opened(cache: Path) -> TeacherCache:
    setting = json.loads((STORED / "cached/cache/what/cache.json").read_text())["setting"]
    rows, store, rank = (setting.pop(key) for key in ("rows", "store", "rank"))
    return TeacherCache(cache, setting, np.zeros(rows, np.int64), "what", store, rank, comparing=True)


@pytest.mark.parametrize("key", ["setting", "fields", "record_bytes"])
@pytest.mark.parametrize("value", [None, 7, [], {"patches": 3}])
def test_a_caches_description_of_another_kind(cache: Path, key: str, value: object) -> None:
    assert opened(cache).codec is not None
    file = cache / "cache.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(CacheError, match="what"):
        opened(cache)


def test_a_cache_without_its_description(cache: Path) -> None:
    (cache / "cache.json").unlink()
    with pytest.raises(CacheError, match=r"cache\.json is gone, without which its rows mean nothing; delete"):
        opened(cache)
