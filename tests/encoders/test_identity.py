"""What tells one encoder from another: every file and all code that can change what it says, and nothing else."""

import importlib
import json
import shutil
import sys

import numpy as np
import pytest
import torch
import zoo_hf
from onnx import TensorProto, helper, numpy_helper

from eyespot.encoders import HeadedEncoder, load_encoder, save_encoder
from eyespot.encoders.identity import identity, stamp, weights_hash


def write_onnx(folder, gain, *, where="initializer", location="model.onnx_data"):
    """A 4-channel map of stride 8 whose kernel is `gain`, kept outside of the file."""
    folder.mkdir(parents=True, exist_ok=True)
    kernel = numpy_helper.from_array(np.full((4, 3, 8, 8), gain, np.float32), "kernel")
    (folder / location).parent.mkdir(parents=True, exist_ok=True)
    (folder / location).write_bytes(kernel.raw_data)
    kernel.ClearField("raw_data")
    kernel.data_location = TensorProto.EXTERNAL
    kernel.external_data.add(key="location", value=location)
    initializers, functions, opening = [kernel], [], []
    constant = helper.make_node("Constant", [], ["kernel"], value=kernel)
    if where != "initializer":
        initializers, opening = [], [constant]
    if where == "function":
        opsets = [helper.make_opsetid("", 18)]
        functions = [helper.make_function("own", "Kernel", [], ["kernel"], [constant], opsets)]
        opening = [helper.make_node("Kernel", [], ["kernel"], domain="own")]
    if where == "subgraph":
        graphs = [
            helper.make_graph([constant], name, [], [helper.make_tensor_value_info("kernel", TensorProto.FLOAT, None)])
            for name in ("yes", "no")
        ]
        initializers = [numpy_helper.from_array(np.array(True), "which")]
        opening = [helper.make_node("If", ["which"], ["kernel"], then_branch=graphs[0], else_branch=graphs[1])]
    initializers.append(numpy_helper.from_array(np.array([2, 3]), "axes"))
    nodes = [
        *opening,
        helper.make_node("Conv", ["images", "kernel"], ["patches"], strides=[8, 8], kernel_shape=[8, 8]),
        helper.make_node("ReduceMean", ["patches", "axes"], ["summary"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["b", 3, 16, 16])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("summary", "patches")],
        initializers,
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=9)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return f"onnx/{folder}/model.onnx"


@pytest.mark.parametrize("where", ["initializer", "attribute", "function", "subgraph"])
@pytest.mark.parametrize("location", ["model.onnx_data", "deep/kernel.bin"])
def test_weights_beside_a_graph_are_part_of_it(where, location, tmp_path):
    if where in ("function", "subgraph", "attribute"):
        pytest.importorskip("onnxruntime")
    try:
        first = load_encoder(write_onnx(tmp_path, 1.0, where=where, location=location))
    except ValueError as error:  # ONNX Runtime reads external data of initializers alone; then nobody is misled
        pytest.skip(str(error)[:200])
    before = identity(first)
    assert [file.name for file in first.files] == ["model.onnx", location.rpartition("/")[2]]
    assert identity(load_encoder(write_onnx(tmp_path, 1.0, where=where, location=location))) == before
    second = load_encoder(write_onnx(tmp_path, 2.0, where=where, location=location))
    assert identity(second) != before
    assert weights_hash(HeadedEncoder(second, 3)) != weights_hash(HeadedEncoder(first_again(tmp_path, where), 3))


def first_again(folder, where):
    return load_encoder(write_onnx(folder / "again", 1.0, where=where))


def test_a_file_that_changed_after_it_was_loaded_is_not_what_was_loaded(tmp_path):
    encoder = load_encoder(write_onnx(tmp_path, 1.0))
    (tmp_path / "model.onnx_data").write_bytes(b"1" * 100)
    with pytest.raises(ValueError, match=r"model\.onnx_data has changed since .* was loaded; load it again"):
        identity(encoder)


def test_openvino_reads_an_onnx_graph_with_its_weights(tmp_path):
    pytest.importorskip("openvino")
    spec = write_onnx(tmp_path, 1.0).replace("onnx/", "openvino/", 1)
    before = identity(load_encoder(spec))
    write_onnx(tmp_path, 2.0)
    assert identity(load_encoder(spec)) != before
    with pytest.raises(ValueError, match=r"an OpenVINO model is an \.xml file; convert"):
        (tmp_path / "a.pdmodel").write_bytes(b"")
        load_encoder(f"openvino/{tmp_path}/a.pdmodel")


EYES = """
import torch
from eyespot import Encoder, Features
from helper_of_eyes import GAIN

class Eyes(Encoder):
    def __init__(self):
        super().__init__()
        self.name = "eyes"
        self.summary_dim, self.patch_dim, self.stride, self.default_size = 3, 3, 8, (16, 16)
        self.weight = torch.nn.Parameter(torch.ones(1))

    def _encode(self, images):
        maps = torch.nn.functional.avg_pool2d(images, 8) * GAIN
        return Features(maps.mean((2, 3)), maps)
"""


@pytest.fixture
def eyes(tmp_path, monkeypatch):
    """A file of an encoder and a module beside it, both importable."""
    (tmp_path / "eyes_here.py").write_text(EYES)
    (tmp_path / "helper_of_eyes.py").write_text("from further_of_eyes import GAIN\n")
    (tmp_path / "further_of_eyes.py").write_text("GAIN = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("eyes_here", "helper_of_eyes", "further_of_eyes"):
        sys.modules.pop(name, None)


def gain_of(encoder):
    return encoder(torch.ones(1, 3, 16, 16)).summary[0, 0].item()


@pytest.mark.parametrize("target", ["eyes_here:Eyes", "{folder}/eyes_here.py:Eyes"])
def test_code_is_part_of_an_encoder_and_is_read_anew(eyes, target):
    """The edit keeps the length and comes within a second, so that Python's own compiled files do not show it."""
    spec = f"python/{target.format(folder=eyes)}"
    first = load_encoder(spec)
    before = identity(first)
    assert gain_of(first) == 1 and identity(load_encoder(spec)) == before
    (eyes / "further_of_eyes.py").write_text("GAIN = 2\n")
    assert identity(first) == before  # what was loaded is what it was
    second = load_encoder(spec)
    assert gain_of(second) == 2 and gain_of(first) == 1
    assert {**identity(second), "code": before["code"]} == before != identity(second)
    (eyes / "eyes_here.py").write_text(EYES.replace("* GAIN", "* 5"))
    assert gain_of(load_encoder(spec)) == 5
    assert len({identity(one)["code"] for one in (load_encoder(spec), second)} | {before["code"]}) == 3


def test_code_may_be_moved(eyes, tmp_path_factory, monkeypatch):
    before = identity(load_encoder(f"python/{eyes}/eyes_here.py:Eyes"))["code"]
    other = tmp_path_factory.mktemp("moved")
    for file in eyes.glob("*.py"):
        shutil.copy(file, other)
    assert identity(load_encoder(f"python/{other}/eyes_here.py:Eyes"))["code"] == before


def test_an_encoder_of_ones_own_is_known_by_its_code_however_it_is_made(eyes):
    module = importlib.import_module("eyes_here")
    before = identity(module.Eyes())
    (eyes / "further_of_eyes.py").write_text("GAIN = 3\n")
    for name in ("eyes_here", "helper_of_eyes", "further_of_eyes"):
        del sys.modules[name]
    importlib.invalidate_caches()
    assert identity(importlib.import_module("eyes_here").Eyes())["code"] != before["code"]


def test_a_saved_model_of_ones_own_rests_on_its_code(eyes):
    spec = f"python/{eyes}/eyes_here.py:Eyes"
    save_encoder(HeadedEncoder(load_encoder(spec), 2), eyes / "saved")
    before = identity(load_encoder(f"run/{eyes}/saved"))
    (eyes / "further_of_eyes.py").write_text("GAIN = 4\n")
    after = identity(load_encoder(f"run/{eyes}/saved"))
    assert after["weights"] == before["weights"] and after["code"] != before["code"]


def test_a_clone_of_torch_hub_rests_on_its_code(eyes):
    (eyes / "hubconf.py").write_text("from eyes_here import Eyes\n\ndef eyes():\n    return Eyes()\n")
    spec = f"torchhub/{eyes}:eyes"
    first = load_encoder(spec)
    (eyes / "further_of_eyes.py").write_text("GAIN = 6\n")
    second = load_encoder(spec)
    assert (gain_of(first), gain_of(second)) == (1, 6)
    assert identity(first)["code"] != identity(second)["code"]
    (eyes / "hubconf.py").write_text("from eyes_here import Eyes\n\ndef eyes():\n    return Eyes().eval()\n")
    assert identity(load_encoder(spec))["code"] != identity(second)["code"]


def test_the_configuration_of_a_folder_is_part_of_its_model(tmp_path):
    zoo_hf.write_model("dinov2", tmp_path)
    before = identity(load_encoder(f"hf/{tmp_path}"))
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"transformers_version": "9"}))
    assert identity(load_encoder(f"hf/{tmp_path}")) == before
    file.write_text(json.dumps(config | {"layer_norm_eps": 0.5}))
    after = identity(load_encoder(f"hf/{tmp_path}"))
    assert after["weights"] == before["weights"] and after != before


def test_what_is_of_libraries_alone_keeps_the_key_it_had(tmp_path):
    """Caches of older versions are found again."""
    encoder = load_encoder("timm/test_vit?pretrained=false")
    assert identity(encoder).keys() == {"model", "weights"}
    save_encoder(encoder, tmp_path / "model")
    assert identity(load_encoder(f"run/{tmp_path}/model")).keys() == {"model", "weights"}
    own = load_encoder("python/eyespot.encoders.shufflenet:shufflenet_v2")
    assert identity(own).keys() == {"model", "weights"}


def test_what_a_process_keeps_by_a_spec_is_let_go_when_a_file_changes(eyes):
    spec = f"python/{eyes}/eyes_here.py:Eyes?size=3"
    before = stamp(spec)
    assert len(before) == 3 and stamp(spec) == before
    (eyes / "further_of_eyes.py").write_text("GAIN = 2 + 0\n")
    assert stamp(spec) != before
    assert stamp("timm/test_vit", "no such file") == ()
    file = eyes / "text.safetensors"
    file.write_bytes(b"one")
    assert stamp(f"open_clip/X?weights={file}") == stamp(str(file)) != ()
