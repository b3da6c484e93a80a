import json

import pytest
import torch
from safetensors.torch import load_file

from eyespot.cli import main
from eyespot.deploy import export
from eyespot.deploy.benchmark.subjects import read_subject
from eyespot.deploy.check import numeric_check
from eyespot.deploy.formats.onnx import write
from eyespot.deploy.graph import exportable, trace
from eyespot.encoders import load_encoder, save_encoder
from multitask_tiny import TASKS, pictures, tiny

ONE = {"depth": TASKS["depth"]}
OUTPUTS = ("summary", "patches", *(f"task_{name}" for name in TASKS))


def quiet(text):
    del text


@torch.no_grad()
@pytest.mark.parametrize(("format", "paths"), [("onnx", ["clip", "sam"]), ("torch", ["sam"])], ids=["onnx", "torch"])
def test_a_file_answers_all_tasks_without_the_paths_that_are_off(tmp_path, format, paths):
    model = tiny()
    model.adapters = {"aligners.sam.0.weight": torch.randn(4, 32)}
    model.active = paths
    done = export(model, format, tmp_path / "out", image_size=(64, 96), say=quiet)
    assert done.check.passed and tuple(entry.output for entry in done.check.agreements) == OUTPUTS
    exported, images = load_encoder(done.spec), pictures(1)
    found = dict(zip(OUTPUTS, exported.session.run(images, OUTPUTS), strict=True))
    for name, answer in model.predict(images).items():
        torch.testing.assert_close(found[f"task_{name}"], answer, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(exported(images).patches, model(images).patches, rtol=1e-3, atol=1e-4)
    facts = exported.facts
    assert {name: task["channels"] for name, task in facts["tasks"].items()} == {
        "segmentation": 5,
        "normals": 3,
        "depth": 1,
    }
    assert facts["outputs"]["task_segmentation"] == [1, 5, 64, 96]
    assert facts["paths"] == paths
    assert {f"task_{name}" for name in TASKS} <= load_file(done.folder / "reference.safetensors").keys()
    assert model.path_names == ("clip", "sam") and all(weight.requires_grad for weight in model.parameters())
    if format == "torch":
        assert not any("clip" in name for name in torch.export.load(done.file).state_dict)


@torch.no_grad()
def test_open_sizes(tmp_path):
    model = tiny(paths=("clip",), tasks=ONE)
    graph = trace(exportable(model), batch=None, size=None)
    write(graph, tmp_path / "model.onnx")
    images = pictures(3, (48, 112))
    expected = model.predict(images)["depth"]
    for session in (load_encoder(f"onnx/{tmp_path}/model.onnx").session.run, lambda *_: graph.program.module()(images)):
        torch.testing.assert_close(session(images, graph.names)[-1], expected, rtol=1e-3, atol=1e-4)


def test_the_command_needs_no_further_flags(tmp_path, capsys):
    folder = save_encoder(tiny(paths=("clip",), tasks=ONE), tmp_path / "model")
    main(["export", f"run/{folder}", "--output", str(tmp_path / "out"), "--image-size", "64", "--format", "torch"])
    assert "task_depth" in capsys.readouterr().out
    facts = json.loads((tmp_path / "out" / "export.json").read_text())
    assert facts["tasks"].keys() == ONE.keys() and facts["check"]["passed"]


def test_the_benchmark_counts_the_heads_too(tmp_path):
    folder = save_encoder(tiny(), tmp_path / "model")
    stem, whole = read_subject(f"run/{folder}?path=stem", [64], [1]), read_subject(f"run/{folder}", [64], [1])
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
