import json

import pytest
import torch
from safetensors.torch import load_file

from eyespot.cli.main import main
from eyespot.deploy import export
from eyespot.deploy.benchmark.timed_models import read_timed_model
from eyespot.deploy.check import numeric_check
from eyespot.deploy.formats.onnx import write
from eyespot.deploy.graph import exportable, trace
from eyespot.encoders import load_encoder, save_encoder
from multitask_tiny import TASKS, pictures, tiny

TWO = {name: TASKS[name] for name in ("segmentation", "depth")}
OUTPUTS = ("summary", "patches", "task_segmentation", "task_depth")


def quiet(text):
    del text


@torch.no_grad()
@pytest.mark.parametrize("through", [pytest.param("function", marks=pytest.mark.formats), "command"])
@pytest.mark.slow
def test_a_file_answers_all_tasks_without_the_paths_that_are_off(tmp_path, capsys, through):
    model, images = tiny(tasks=TWO), pictures(1)
    model.adapters = {"aligners.sam.0.weight": torch.randn(4, 32)}
    if through == "function":
        done = export(model, "onnx", tmp_path / "out", image_size=(64, 96), say=quiet)
        assert done.check.passed and tuple(entry.output for entry in done.check.agreements) == OUTPUTS
        exported = load_encoder(done.spec)
    else:
        model.active = ["sam"]
        folder = save_encoder(model, tmp_path / "model")
        out = ["--output", str(tmp_path / "out"), "--format", "torch", "--image-size", "64", "96"]
        main(["export", f"run/{folder}", *out])
        assert "task_depth" in capsys.readouterr().out
        exported = load_encoder(f"torch/{tmp_path}/out/model.pt2")
        assert not any("clip" in name for name in torch.export.load(exported.path).state_dict)
    found = dict(zip(OUTPUTS, exported.session.run(images, OUTPUTS), strict=True))
    for name, answer in model.predict(images).items():
        torch.testing.assert_close(found[f"task_{name}"], answer, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(exported(images).patches, model(images).patches, rtol=1e-3, atol=1e-4)
    facts = json.loads((tmp_path / "out" / "export.json").read_text())
    assert {name: task["channels"] for name, task in facts["tasks"].items()} == {"segmentation": 5, "depth": 1}
    assert facts["outputs"]["task_segmentation"] == [1, 5, 64, 96] and facts["check"]["passed"]
    assert exported.facts["paths"] == facts["paths"] == list(model.active)
    assert {f"task_{name}" for name in TWO} <= load_file(tmp_path / "out" / "reference.safetensors").keys()
    assert model.path_names == ("clip", "sam") and all(weight.requires_grad for weight in model.parameters())


def test_what_is_off_is_left_out_of_a_copy():
    model = tiny(tasks=TWO)
    model.active = ["sam"]
    exported = exportable(model).encoder
    assert exported.path_names == ("sam",) and model.path_names == ("clip", "sam")
    assert not any("clip" in name for name in exported.state_dict())


@pytest.mark.formats
@torch.no_grad()
def test_open_sizes(tmp_path):
    model = tiny(paths=("clip",), tasks={"depth": TASKS["depth"]})
    graph = trace(exportable(model), batch=None, size=None)
    write(graph, tmp_path / "model.onnx")
    images = pictures(3, (48, 112))
    expected = model.predict(images)["depth"]
    for run in (load_encoder(f"onnx/{tmp_path}/model.onnx").session.run, lambda *_: graph.program.module()(images)):
        torch.testing.assert_close(run(images, graph.names)[-1], expected, rtol=1e-3, atol=1e-4)


def test_the_benchmark_counts_the_heads_too(tmp_path):
    folder = save_encoder(tiny(), tmp_path / "model")
    stem, whole = read_timed_model(f"run/{folder}?path=stem", [64], [1]), read_timed_model(f"run/{folder}", [64], [1])
    assert whole.groups[0].gmacs > 2 * stem.groups[0].gmacs


def test_maps_of_one_channel_are_compared_as_wholes():
    """Along one channel a cosine would see signs only: right for any depth, wrong for any boundary near 0."""

    def model(images):
        return (images.mean(1, keepdim=True) + 1,)

    class Session:
        batch = size = None
        outputs = ("task_depth",)
        metadata: dict[str, str] = {}  # noqa: RUF012

        def run(self, images, names):
            return [value.square() for value in model(images)]

    check = numeric_check(model, Session(), Session.outputs, [pictures()])
    assert 0.9 < check.cosine < 0.9999 and not check.passed
