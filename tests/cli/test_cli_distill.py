"""The contract of `eyespot distill` that others script against."""

from pathlib import Path
from typing import Any

import pytest
import torch
from cli_tiny import SMALL_PROXY, config_of, stages_trained

from eupe_tiny import model_bytes
from eyespot import load_encoder
from eyespot.engine.metrics import read_lines
from eyespot.recipes.eupe.config import STAGE_1, STAGE_2, STAGE_3

# The contract


def test_distill_trains_every_stage_for_that_many_steps(run: Path, folder: Path) -> None:
    assert stages_trained(run) == {STAGE_1: 2, STAGE_2: 2, STAGE_3: 2}
    config = config_of(run)
    assert config["proxy"] == "timm/test_vit2" and config["data"]["sources"] == [str(folder / "pictures")]
    assert config["data"]["view"]["scale"] == [0.3, 1.0]  # the laptop's, by default
    assert config["stage1"]["warmup_steps"] == 0  # shortened with the steps
    images = torch.rand(2, 3, 32, 32)
    features = load_encoder(f"run/{run}")(images)
    assert torch.equal(load_encoder(f"run/{run}/student")(images).summary, features.summary)


def test_same_command_continues_and_trains_nothing_twice(
    eyespot: Any, run: Path, command: list[str], no_training: None
) -> None:
    before, metrics = model_bytes(run), (run / "metrics.jsonl").read_bytes()
    answer = eyespot(*command, "--output", run)
    assert answer.code == 0
    assert str(run / "student") in answer.out and f'load_encoder("run/{run}")' in answer.out
    assert model_bytes(run) == before and (run / "metrics.jsonl").read_bytes() == metrics


def test_the_runs_own_config_continues_it_too(eyespot: Any, run: Path, no_training: None) -> None:
    assert eyespot("distill", "eupe", "--config", run / "config.yaml", "--output", run).code == 0


def test_another_configuration_is_refused_with_the_difference(eyespot: Any, run: Path, command: list[str]) -> None:
    before = (run / "config.yaml").read_bytes()
    answer = eyespot(*command, "--seed", "1", "--standardizer", "phi_s", "--output", run)
    assert answer.code == 1
    changes = [line.strip() for line in answer.err.splitlines()[1:-1]]
    assert sorted(changes) == ["seed: 0 -> 1", "standardizer: 'channel' -> 'phi_s'"]
    assert (run / "config.yaml").read_bytes() == before


def test_several_presets_are_laid_over_one_another(eyespot: Any, folder: Path, command: list[str]) -> None:
    at = command.index("--proxy")
    without_proxy = command[:at] + command[at + len(SMALL_PROXY) :]
    answer = eyespot(*without_proxy, "--preset", "laptop", "direct", "--output", folder / "direct")
    assert answer.code == 0
    assert stages_trained(folder / "direct") == {STAGE_2: 2}
    config = config_of(folder / "direct")
    assert config["proxy"] is None and config["stage3"]["steps"] == 0 and config["max_grid"] == 14


def test_a_finished_proxy_is_taken_by_relative_and_absolute_path(
    eyespot: Any, run: Path, folder: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for place in (f"run/run/{STAGE_1}", f"run/{run}/{STAGE_1}"):
        output = folder / f"from-{'absolute' if '//' in place else 'relative'}"
        assert eyespot(*command, "--proxy", place, "--output", output).code == 0
        assert stages_trained(output) == {STAGE_2: 2, STAGE_3: 2}
        assert (output / "student/model.safetensors").read_bytes() == (run / "student/model.safetensors").read_bytes()


def test_onnx_and_python_teachers_by_relative_and_absolute_path(
    eyespot: Any, folder: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_onnx(folder / "expert.onnx")
    monkeypatch.chdir(folder)
    specs = ["onnx/expert.onnx", f"onnx/{folder}/expert.onnx", "python/teachers.py:what"]
    short = ["--preset", "laptop", "direct", "--proxy", "none", "--stage2.teacher-sizes", "32"]
    answer = eyespot(*command, *short, "--teachers", *specs, "--data", "pictures", "--output", "relative")
    assert answer.code == 0, answer.err
    terms = read_lines(folder / "relative/metrics.jsonl")[0].keys()
    assert {"expert/patch", "expert-2/patch", "what/patch"} < terms
    assert config_of(folder / "relative")["teachers"] == specs


def write_onnx(file: Path) -> None:
    """An expert of the contract: one convolution with stride 8, native size 32."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    kernel = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0)).numpy()
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Conv", ["images", "kernel"], ["patches"], strides=[8, 8]),
            onnx.helper.make_node("ReduceMean", ["patches", "axes"], ["summary"], keepdims=0),
        ],
        "expert",
        [onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["batch", 3, 32, 32])],
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("summary", "patches")],
        [
            onnx.numpy_helper.from_array(kernel, "kernel"),
            onnx.numpy_helper.from_array(torch.tensor([2, 3]).numpy(), "axes"),
        ],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), file)


def test_permissive_only_refuses_from_the_command_line(eyespot: Any, folder: Path, command: list[str]) -> None:
    answer = eyespot(*command, "--permissive-only", "--output", folder / "permissive")
    assert answer.code == 1 and "teachers.py:where: non-commercial (cc-by-nc-4.0)" in answer.err
    assert not (folder / "permissive").exists()
