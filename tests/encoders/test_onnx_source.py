import sys

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper

from eyespot.encoders import load_classifier, load_encoder
from eyespot.randomness import torch_generator

KERNEL = torch.randn(5, 3, 8, 8, generator=torch_generator("kernel"))


def build(file, *, names=("summary", "patches"), shape=("batch", 3, "height", "width"), prefix=None, licence=None):
    """A graph of one convolution with stride 8: its map, or its tokens behind `prefix` zero tokens, and its maxima."""
    map_name = names[1] if prefix is None else "map"
    nodes = [
        helper.make_node("Conv", ["images", "kernel"], [map_name], strides=[8, 8]),
        helper.make_node("ReduceMax", [map_name, "axes"], [names[0]], keepdims=0),
    ]
    constants = {"kernel": KERNEL.numpy(), "axes": np.array([2, 3])}
    if prefix is not None:
        constants |= {"flat": np.array([0, len(KERNEL), -1]), "pads": np.array([0, prefix, 0, 0, 0, 0])}
        nodes += [
            helper.make_node("Reshape", [map_name, "flat"], ["flattened"]),
            helper.make_node("Transpose", ["flattened"], ["tokens"], perm=[0, 2, 1]),
            helper.make_node("Pad", ["tokens", "pads"], [names[1]]),
        ]
    graph = helper.make_graph(
        nodes,
        "one convolution",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if licence:
        onnx.helper.set_model_props(model, {"license": licence})
    onnx.save(model, file)
    return file


def expected(images):
    patches = F.conv2d(images, KERNEL, stride=8)
    return patches.amax((2, 3)), patches


def check(encoder, size=(32, 32), count=3):
    images = torch.rand(count, 3, *size)
    features = encoder(images)
    summary, patches = expected(images)
    torch.testing.assert_close(features.summary, summary, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(features.patches, patches, rtol=1e-4, atol=1e-4)
    assert (encoder.summary_dim, encoder.patch_dim, encoder.stride) == (5, 5, 8)


def test_a_file_of_the_contract_needs_no_options(tmp_path):
    file = build(tmp_path / "a.onnx", shape=("batch", 3, 32, 48), licence="mit")
    encoder = load_encoder(f"onnx/{file}")
    assert encoder.native_size == encoder.default_size == (32, 48)
    assert (encoder.name, encoder.license) == (f"onnx/{file}", "mit")
    check(encoder, (32, 48))
    with pytest.raises(ValueError, match="takes 32x48 pictures only, got 48x32"):
        encoder(torch.rand(1, 3, 48, 32))


def test_paths_relative_and_absolute(tmp_path, monkeypatch):
    build(tmp_path / "a.onnx")
    monkeypatch.chdir(tmp_path)
    for spec in ("onnx/a.onnx", "onnx/./a.onnx", f"onnx/{tmp_path}/a.onnx"):
        check(load_encoder(spec))


def test_an_open_size_takes_any_multiple_of_the_stride(tmp_path):
    encoder = load_encoder(f"onnx/{build(tmp_path / 'a.onnx')}")
    assert encoder.native_size is None and encoder.default_size == (224, 224)
    for size in ((16, 16), (40, 24)):
        check(encoder, size)
    with pytest.raises(ValueError, match="multiples of 8, got 20x16; 16x16 would do"):
        encoder(torch.rand(1, 3, 20, 16))


@pytest.mark.parametrize(("option", "size"), [("64", (64, 64)), ("32,64", (32, 64))])
def test_the_default_size_of_an_open_file_is_an_option(tmp_path, option, size):
    encoder = load_encoder(f"onnx/{build(tmp_path / 'a.onnx')}?size={option}")
    assert encoder.default_size == size and encoder.native_size is None


@pytest.mark.parametrize("names", [("pooled", "dense"), ("494", "495")])
def test_other_output_names_by_options(tmp_path, names):
    """Exporters that get no names number the outputs, and a number in a spec is not to be taken for one."""
    file = build(tmp_path / "a.onnx", names=names)
    check(load_encoder(f"onnx/{file}?summary={names[0]}&patches={names[1]}"))
    with pytest.raises(ValueError, match=f"no output summary or patches; it has {names[0]}, {names[1]}.*summary=mean"):
        load_encoder(f"onnx/{file}")
    with pytest.raises(ValueError, match="no output patches"):
        load_encoder(f"onnx/{file}?summary={names[0]}")


def test_summary_as_mean_of_the_patches(tmp_path):
    encoder = load_encoder(f"onnx/{build(tmp_path / 'a.onnx')}?summary=mean")
    features = encoder(torch.rand(2, 3, 32, 32))
    assert torch.equal(features.summary, features.patches.mean((2, 3)))


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_tokens_become_a_map_without_their_prefix(tmp_path, prefix):
    encoder = load_encoder(f"onnx/{build(tmp_path / 'a.onnx', prefix=prefix)}?prefix={prefix}&size=32")
    check(encoder)
    check(encoder, (16, 64))  # 16 tokens: a square number, but not a square


@pytest.mark.parametrize("forgotten", [1, 2, 4, 5])
def test_a_forgotten_prefix_is_refused(tmp_path, forgotten):
    with pytest.raises(ValueError, match="set prefix="):
        load_encoder(f"onnx/{build(tmp_path / 'a.onnx', prefix=forgotten)}?size=32")


def test_normalisation_by_options(tmp_path):
    file = build(tmp_path / "a.onnx")
    images = torch.rand(2, 3, 32, 32)
    plain = load_encoder(f"onnx/{file}")
    normalising = load_encoder(f"onnx/{file}?mean=0.4,0.5,0.6&std=0.2,0.3,0.25")
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.4, 0.5, 0.6), (0.2, 0.3, 0.25)))
    summary, patches = expected((images - mean) / std)
    torch.testing.assert_close(normalising(images).patches, patches, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(normalising(images).summary, summary, rtol=1e-4, atol=1e-4)
    assert not torch.equal(plain(images).patches, patches)
    assert normalising.name != plain.name  # or the feature cache would take them for one teacher
    with pytest.raises(ValueError, match="three numbers"):
        load_encoder(f"onnx/{file}?mean=0.5&std=1")
    with pytest.raises(ValueError, match="divide by 255"):
        load_encoder(f"onnx/{file}?mean=123.675,116.28,103.53&std=58.395,57.12,57.375")
    with pytest.raises(ValueError, match="divide by 255"):
        load_encoder(f"onnx/{file}?mean=0,0,0&std=255,255,255")
    with pytest.raises(ValueError, match="above 0"):
        load_encoder(f"onnx/{file}?mean=0,0,0&std=0,1,1")
    for alone in ("mean", "std"):
        with pytest.raises(ValueError, match="state mean= and std= together"):
            load_encoder(f"onnx/{file}?{alone}=0.5,0.5,0.5")


def test_a_file_for_single_pictures_takes_batches_too(tmp_path):
    check(load_encoder(f"onnx/{build(tmp_path / 'a.onnx', shape=(1, 3, 32, 32))}"))


@pytest.mark.parametrize("count", [1, 4, 5])
def test_a_file_for_another_fixed_batch_is_filled_up(tmp_path, count):
    check(load_encoder(f"onnx/{build(tmp_path / 'a.onnx', shape=(4, 3, 32, 32))}"), count=count)


def test_an_input_that_is_no_picture_is_refused(tmp_path):
    file = build(tmp_path / "a.onnx", shape=("batch", 3, 32, 32))
    model = onnx.load(file)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("ReduceMax", ["images", "axes"], ["summary"], keepdims=0))
    model.graph.node.append(helper.make_node("Identity", ["images"], ["patches"]))
    onnx.save(model, file)
    with pytest.raises(ValueError, match=r"must be pictures \[batch, 3, H, W\]"):
        load_encoder(f"onnx/{file}")


def test_a_missing_file_and_an_unknown_option(tmp_path):
    with pytest.raises(FileNotFoundError, match="onnx//path"):
        load_encoder("onnx/nowhere.onnx")
    with pytest.raises(ValueError, match="patch_name"):
        load_encoder(f"onnx/{build(tmp_path / 'a.onnx')}?patch_name=x")


@pytest.mark.parametrize("content", [b"", b"this is not a graph"])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "broken.onnx").write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.onnx"):
        load_encoder(f"onnx/{tmp_path / 'broken.onnx'}")


def test_a_licence_may_be_told(tmp_path):
    file = build(tmp_path / "a.onnx")
    assert load_encoder(f"onnx/{file}").license is None
    assert load_encoder(f"onnx/{file}?license=apache-2.0").license == "apache-2.0"


def test_misread_pictures_and_inner_layers_are_refused(tmp_path):
    encoder = load_encoder(f"onnx/{build(tmp_path / 'a.onnx')}")
    with pytest.raises(ValueError, match="divide by 255"):
        encoder(torch.rand(1, 3, 32, 32) * 255)
    with pytest.raises(NotImplementedError, match="inner layers"):
        encoder.intermediates(torch.rand(1, 3, 32, 32), [0])


EXPERTS = {
    "semantic_mobilenetv2_in1k": (1280, 320, 7, 32),
    "segmentation_deeplabv3_voc": (320, 320, 14, 16),
    "depth_fastdepth_nyu": (200, 256, 28, 8),
    "keypoints_alike_n": (128, 128, 28, 8),
}


@pytest.mark.parametrize("name", EXPERTS)
def test_the_real_experts(shared, name):
    file = shared / "teachers" / f"{name}.onnx"
    if not file.is_file():
        pytest.skip(f"no teacher {file}")
    summary_dim, patch_dim, side, stride = EXPERTS[name]
    encoder = load_encoder(f"onnx/{file}")
    assert (encoder.summary_dim, encoder.patch_dim, encoder.stride) == (summary_dim, patch_dim, stride)
    assert encoder.native_size == (224, 224)
    images = torch.rand(2, 3, 224, 224)
    features = encoder(images)
    assert features.summary.shape == (2, summary_dim) and features.patches.shape == (2, patch_dim, side, side)
    torch.testing.assert_close(encoder(images[:1]).summary, features.summary[:1], rtol=1e-3, atol=1e-3)
    if name.startswith("keypoints"):
        torch.testing.assert_close(features.patches.norm(dim=1), torch.ones(2, side, side), rtol=1e-3, atol=1e-3)


def test_a_missing_onnxruntime_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install 'eyespot\[onnx\]'"):
        load_encoder(f"onnx/{tmp_path}/any.onnx")


def test_a_comma_in_the_name_of_a_file_says_how_to_write_it():
    with pytest.raises(ValueError, match="in the name of a file it is written %2C"):
        load_encoder("timm/test_vit?weights=/disk/e,f.safetensors")


def write_classifier(path, softmax):
    """The mean colour, 30 times; with a softmax if wanted. The output is called logits either way."""
    nodes = [
        helper.make_node("AveragePool", ["images"], ["patches"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("GlobalAveragePool", ["patches"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["summary"]),
        helper.make_node("MatMul", ["summary", "W"], ["raw" if softmax else "logits"]),
    ]
    nodes += [helper.make_node("Softmax", ["raw"], ["logits"], axis=1)] if softmax else []
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["b", 3, 32, 32])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("summary", "patches", "logits")],
        [numpy_helper.from_array(30 * np.eye(3, dtype=np.float32), "W")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_probabilities_that_are_called_logits(tmp_path, recwarn):
    plain = load_classifier(f"onnx/{write_classifier(tmp_path / 'plain.onnx', softmax=False)}")
    assert not recwarn.list
    with pytest.warns(UserWarning, match="output logits holds probabilities .* their logarithm is taken"):
        through = load_classifier(f"onnx/{write_classifier(tmp_path / 'softmax.onnx', softmax=True)}")
    images = torch.rand(4, 3, 32, 32)
    torch.testing.assert_close(through(images).logits.softmax(1), plain(images).logits.softmax(1), rtol=1e-4, atol=1e-5)
    red = torch.zeros(1, 3, 32, 32)
    red[:, 0] = 1
    assert through(red).logits.isfinite().all() and float(through(red).logits.softmax(1)[0, 0]) > 0.9999


def test_the_runtimes_own_error_names_the_file(tmp_path):
    file = build(tmp_path / "a.onnx", shape=("batch", 3, 32, 48))
    with pytest.raises(RuntimeError, match=rf"onnx/{file} cannot be run on pictures \[1, 3, 8, 8\] \("):
        load_encoder(f"onnx/{file}").session.run(torch.rand(1, 3, 8, 8), ["patches"])
