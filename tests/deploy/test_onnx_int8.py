import json
import logging
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eyespot.deploy.formats.int8 import first_layers, is_transformer
from eyespot.deploy.formats.onnx import write
from eyespot.deploy.formats.onnx_int8 import write_int8
from eyespot.deploy.graph import exportable, trace
from eyespot.encoders import Encoder, load_encoder
from eyespot.encoders.runtimes.onnx import ROUNDED, open_session
from eyespot.features import Features

onnx = pytest.importorskip("onnx", reason="needs ONNX: pip install 'eyespot[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install 'eyespot[onnx]'")
pytest.importorskip("onnxscript", reason="needs onnxscript: pip install 'eyespot[onnx]'")
SIZE = (64, 32)
MODELS = {
    "vit": "timm/vit_tiny_patch16_dinov3_qkvb?pretrained=false&depth=2&embed_dim=96&num_heads=3",
    "cnn": "timm/test_resnet?pretrained=false",
    "convnext": "timm/test_convnext?pretrained=false",
}


def pictures(count, size=SIZE):
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def agreement(encoder, file, images):
    """The least cosine of summaries and of patches, over pictures and positions."""
    session = open_session(file, threads=1)
    features = encoder(images)
    pieces = [session.run(piece, ("patches", "summary")) for piece in images.split(session.taken.batch or len(images))]
    patches, summary = (torch.cat(values) for values in zip(*pieces, strict=True))
    return min(
        float(F.cosine_similarity(features.summary.double(), summary.double()).min()),
        float(F.cosine_similarity(features.patches.double(), patches.double()).min()),
    )


def run_as(file, tmp_path):
    """Operators that ONNX Runtime makes of a file, with how many there are."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)


@pytest.fixture(scope="module", params=["vit", "cnn", pytest.param("convnext", marks=pytest.mark.slow)])
def made(request, tmp_path_factory):
    """(which, encoder, graph, float file, int8 file)."""
    torch.manual_seed(0)
    encoder = load_encoder(MODELS[request.param])
    graph = trace(exportable(encoder), size=SIZE)
    folder = tmp_path_factory.mktemp(request.param)
    write(graph, folder / "float.onnx")
    write_int8(graph, folder / "int8.onnx", list(pictures(8).split(1)))
    return request.param, encoder, graph, folder / "float.onnx", folder / "int8.onnx"


def test_near_and_small(made):
    _, encoder, _, plain, file = made
    assert agreement(encoder, file, pictures(4)) > 0.98
    assert file.stat().st_size < 0.6 * plain.stat().st_size  # these networks are so small that the rest weighs


def test_facts_survive(made):
    _, encoder, graph, _, file = made
    session = open_session(file)
    assert {name: session.metadata[name] for name in graph.facts} == graph.facts
    assert json.loads(session.metadata["eyespot"])["model"] == encoder.name
    assert (session.taken.batch, session.taken.sides, session.outputs) == (1, SIZE, ("summary", "patches"))
    onnx.checker.check_model(onnx.load(file), full_check=True)


def test_layers_run_in_int8(made, tmp_path):
    which, _, graph, _, file = made
    found = run_as(file, tmp_path)
    layers = {layer for layer in graph.layers.values() if "norm" not in layer} - first_layers(graph)
    if which == "vit":
        assert found["MatMulIntegerToFloat"] == len(layers) == 2 * 4
        assert found["Conv"] == 1  # the patch embedding
        assert not found["Gemm"]  # a product and its bias in one, in float
    elif which == "cnn":
        assert found["QLinearConv"] == sum(node.op_type == "Conv" for node in onnx.load(file).graph.node) - 1
        assert not found["Add"]
    else:
        assert found["MatMulIntegerToFloat"] > 0
        assert found["QLinearConv"] > 0


def test_attention_stays_in_float(made):
    which, _, graph, _, file = made
    assert is_transformer(graph) == (which != "cnn")
    nodes = onnx.load(file).graph.node
    rounded = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    attention = [node for node in nodes if node.op_type == "MatMul" and node.name not in graph.layers.values()]
    assert len(attention) == (4 if which == "vit" else 0)
    assert not any(set(node.input) & rounded for node in attention)


def test_layers_kept_in_float(made, tmp_path):
    which, encoder, graph, plain, _ = made
    names = {node.name for node in onnx.load(plain).graph.node} & set(graph.layers.values())
    write_int8(graph, tmp_path / "model.onnx", [pictures(1)], keep_float=names)
    if which == "vit":
        assert not any("Linear" in node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node)
        assert agreement(encoder, tmp_path / "model.onnx", pictures(2)) > 1 - 1e-6
    else:
        assert not {"QLinearConv", "MatMulIntegerToFloat", "QGemm"} & set(run_as(tmp_path / "model.onnx", tmp_path))
    with pytest.raises(ValueError, match="no layers nowhere to keep in float; there are encoder"):
        write_int8(graph, tmp_path / "model.onnx", [pictures(1)], keep_float=["nowhere"])


def test_a_layer_kept_in_float_among_others_in_int8_is_not_rounded_by_the_runtime(tmp_path):
    torch.manual_seed(0)
    graph = trace(exportable(load_encoder(MODELS["cnn"])), size=SIZE)
    write_int8(graph, tmp_path / "all.onnx", [pictures(1)])
    write_int8(graph, tmp_path / "kept.onnx", [pictures(1)], keep_float=["encoder.model.layer1.0.conv2"])
    before, after = (run_as(tmp_path / name, tmp_path) for name in ("all.onnx", "kept.onnx"))
    assert after["QLinearConv"] == before["QLinearConv"] - 1
    assert after["Conv"] == before["Conv"] + 1


def test_weights_only(made, tmp_path):
    _, encoder, graph, plain, _ = made
    file = tmp_path / "model.onnx"
    write_int8(graph, file, [], weights_only=True)
    assert agreement(encoder, file, pictures(2)) > 0.999
    assert file.stat().st_size < 0.6 * plain.stat().st_size
    model = onnx.load(file)
    assert {node.domain for node in model.graph.node} == {""}  # standard operators, for other runtimes
    assert not any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    assert open_session(file).metadata[ROUNDED] == "weights"  # so that it is opened without a search for int8 products
    with pytest.raises(ValueError, match="needs calibration pictures"):
        write_int8(graph, file, [])


def test_rounded_weights_are_within_half_a_step(made, tmp_path):
    _, _, graph, _, _ = made
    file = tmp_path / "model.onnx"
    write_int8(graph, file, [], weights_only=True)
    model = onnx.load(file)
    values = {constant.name: onnx.numpy_helper.to_array(constant) for constant in model.graph.initializer}
    weights = dict(graph.program.state_dict)
    checked = 0
    readers = {node.input[1]: node for node in model.graph.node if len(node.input) > 1}
    for node in (node for node in model.graph.node if node.op_type == "DequantizeLinear"):
        weight = weights[f"{readers[node.output[0]].name}.weight"].flatten(1)
        whole, scales = (torch.from_numpy(values[name].copy()).float() for name in node.input)
        if node.attribute[0].i == 1:  # ONNX's matrix products take [in, out]
            whole = whole.T
        assert (whole.flatten(1) * scales[:, None] - weight).abs().max() <= scales.max() / 2 + 1e-6
        assert whole.abs().amax() == (127 if weight.any() else 0)  # residual branches may begin as zeros
        checked += 1
    assert checked == len(graph.layers) - len(first_layers(graph))  # what reads the picture stays in float


class Grouped(Encoder):
    """A stem, a depthwise convolution and a grouped one with two channels per group."""

    def __init__(self):
        super().__init__()
        self.name, self.stride, self.default_size = "grouped", 4, SIZE
        self.stem, self.depthwise = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grouped, self.last = nn.Conv2d(8, 16, 3, padding=1, groups=8), nn.Conv2d(16, 8, 1)

    def _encode(self, images):
        patches = self.last(self.grouped(self.depthwise(self.stem(images)).relu()).relu())
        return Features(patches.mean((2, 3)), patches)


def test_grouped_convolutions_that_are_not_depthwise_stay_in_float(tmp_path):
    graph = trace(exportable(Grouped().eval()), size=SIZE)
    write_int8(graph, tmp_path / "model.onnx", [pictures(1)])
    nodes = onnx.load(tmp_path / "model.onnx").graph.node
    rounded = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    in_int8 = {node.name for node in nodes if node.op_type == "Conv" and node.input[1] in rounded}
    assert in_int8 == {"encoder.depthwise", "encoder.last"}


@pytest.mark.formats
def test_open_shapes(tmp_path):
    torch.manual_seed(0)
    encoder = load_encoder(MODELS["vit"])
    write_int8(trace(exportable(encoder), batch=None), tmp_path / "model.onnx", [pictures(2), pictures(1, (32, 48))])
    assert open_session(tmp_path / "model.onnx").taken.batch is None
    for count, size in ((1, (64, 64)), (3, (48, 96))):
        assert agreement(encoder, tmp_path / "model.onnx", pictures(count, size)) > 0.98


@pytest.mark.formats
def test_nothing_is_printed(made, tmp_path, capfd):
    _, _, graph, _, _ = made
    disabled = logging.root.manager.disable
    write_int8(graph, tmp_path / "model.onnx", [pictures(1)])
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == disabled


@pytest.mark.formats
def test_layers_that_read_the_picture():
    torch.manual_seed(0)
    for which, expected in (("vit", "patch_embed.proj"), ("cnn", "conv1"), ("convnext", "stem.0")):
        encoder = load_encoder(MODELS[which])
        found = first_layers(trace(exportable(encoder), size=SIZE))
        assert len(found) == 1
        assert found.pop().startswith(f"encoder.model.{expected}")
