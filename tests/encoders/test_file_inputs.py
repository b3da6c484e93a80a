"""What files of other runtimes say of their inputs and outputs: taken where it is plain, refused by name elsewhere."""

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from eyespot.encoders import load_encoder
from eyespot.encoders.runtimes import torch as torch_runtime
from eyespot.encoders.runtimes.stride import find_stride
from eyespot.randomness import torch_generator

SIDE = 8
KERNEL = torch.randn(5, 3, SIDE, SIDE, generator=torch_generator("file inputs"))
IMAGES = torch.rand(2, 3, 32, 48, generator=torch_generator("pictures"))
BOTH = ("summary", "patches")


def build(
    file,
    *,
    kind=TensorProto.FLOAT,
    shape=("b", 3, "h", "w"),
    last=False,
    further=(),
    outputs=BOTH,
    opening=(),
    closing=(),
    constants=None,
    given=TensorProto.FLOAT,
):
    """One convolution of stride 8 and its means, as exporters write it; `closing` nodes name both."""
    nodes = [helper.make_node("Cast", ["images"], ["cast"], to=TensorProto.FLOAT), *opening]
    if last:
        nodes.append(helper.make_node("Transpose", ["cast"], ["first"], perm=[0, 3, 1, 2]))
    nodes += [
        helper.make_node("Conv", ["first" if last else "cast", "kernel"], ["map"], strides=[SIDE, SIDE]),
        helper.make_node("ReduceMean", ["map", "axes"], ["mean"], keepdims=0),
        *(closing or [helper.make_node("Cast", [a], [b], to=given) for a, b in (("mean", BOTH[0]), ("map", BOTH[1]))]),
    ]
    known = {"kernel": KERNEL.numpy(), "axes": np.array([2, 3]), **(constants or {})}
    graph = helper.make_graph(
        nodes,
        "one convolution",
        [
            helper.make_tensor_value_info("images", kind, list(shape)),
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in further),
        ],
        [helper.make_tensor_value_info(name, given, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in known.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), file)
    return file


def check(encoder, images=IMAGES, tolerance=1e-4):
    features = encoder(images)
    patches = F.conv2d(images, KERNEL, stride=SIDE)
    torch.testing.assert_close(features.patches, patches, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(features.summary, patches.mean((2, 3)), rtol=tolerance, atol=tolerance)
    assert (encoder.stride, encoder.patch_dim) == (SIDE, 5)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({"kind": TensorProto.FLOAT16}, 2e-2),
        ({"kind": TensorProto.DOUBLE}, 1e-4),
        ({"shape": ("b", "h", "w", 3), "last": True}, 1e-4),
        ({"shape": (2, 32, 48, 3), "last": True}, 1e-4),
        ({"given": TensorProto.FLOAT16}, 5e-2),
        ({"given": TensorProto.DOUBLE}, 1e-4),
    ],
    ids=["float16", "float64", "channels last", "channels last, fixed", "gives float16", "gives float64"],
)
def test_types_and_layouts_are_taken_as_they_are(runtime, options, tolerance, tmp_path):
    pytest.importorskip(runtime if runtime == "openvino" else "onnxruntime")
    check(load_encoder(f"{runtime}/{build(tmp_path / 'a.onnx', **options)}"), tolerance=tolerance)


def test_levels_from_0_to_255_are_given_to_a_uint8_input(tmp_path):
    opening = [helper.make_node("Div", ["cast", "most"], ["unit"])]
    file = tmp_path / "a.onnx"
    build(file, kind=TensorProto.UINT8, opening=opening, constants={"most": np.array(255, np.float32)})
    model = onnx.load(file)
    next(node for node in model.graph.node if node.op_type == "Conv").input[0] = "unit"
    onnx.save(model, file)
    check(load_encoder(f"onnx/{file}"), (IMAGES * 255).round() / 255)
    with pytest.raises(ValueError, match="levels from 0 to 255, and must normalise for itself: leave mean and std out"):
        load_encoder(f"onnx/{file}?mean=0.5,0.5,0.5&std=0.5,0.5,0.5")


def test_a_half_open_size_is_one_size(tmp_path):
    file = build(tmp_path / "a.onnx", shape=("b", 3, 32, "w"))
    encoder = load_encoder(f"onnx/{file}")
    assert encoder.native_size == (32, 32)
    check(encoder, IMAGES[..., :32])
    wide = load_encoder(f"onnx/{file}?size=32,48")
    assert wide.native_size == (32, 48)
    check(wide)
    with pytest.raises(ValueError, match="takes pictures of 32xany, not of size=64,64"):
        load_encoder(f"onnx/{file}?size=64")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"further": ["threshold"]}, r"2 inputs \(images, threshold\).*with the others as constants"),
        ({"kind": TensorProto.INT32}, "its input is of type int32; export it with pictures as float32 or uint8"),
        ({"shape": ("b", 1, "h", "w")}, r"must be pictures \[batch, 3, H, W\] or \[batch, H, W, 3\], it is .* 1, "),
        ({"given": TensorProto.INT64}, "output summary is of type int64, not floats"),
        ({"shape": ("b", "h", "w", 3)}, r"cannot take a 224x224 picture \(RuntimeError.*size=H,W"),
    ],
)
def test_what_is_refused_names_the_fix(options, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        load_encoder(f"onnx/{build(tmp_path / 'a.onnx', **options)}")


def to_last(name):
    return helper.make_node("Transpose", ["map"], [name], perm=[0, 2, 3, 1])


def test_a_map_with_its_channels_last_is_turned(tmp_path):
    closing = [to_last("patches"), helper.make_node("Identity", ["mean"], ["summary"])]
    check(load_encoder(f"onnx/{build(tmp_path / 'a.onnx', closing=closing)}"))


@pytest.mark.parametrize("axes", [[2, 3], [1, 2], [1]])
def test_a_vector_may_have_sides_of_one(axes, tmp_path):
    """[B, C, 1, 1], [B, 1, 1, C] and [B, 1, C]."""
    closing = [helper.make_node("Unsqueeze", ["mean", "where"], ["summary"]), to_last("patches")]
    file = build(tmp_path / "a.onnx", closing=closing, constants={"where": np.array(axes)})
    check(load_encoder(f"onnx/{file}"))


def test_a_summary_that_is_a_map_is_refused(tmp_path):
    closing = [helper.make_node("Identity", ["map"], ["summary"]), to_last("patches")]
    file = build(tmp_path / "a.onnx", closing=closing)
    with pytest.raises(ValueError, match=r"output summary of shape \(1, 5, 28, 28\) is not one vector.*summary=mean"):
        load_encoder(f"onnx/{file}")
    check(load_encoder(f"onnx/{file}?summary=mean"))


def test_outputs_without_a_row_for_each_picture_are_refused(tmp_path):
    closing = [
        helper.make_node("Squeeze", ["mean", "first"], ["summary"]),
        helper.make_node("Identity", ["map"], ["patches"]),
    ]
    file = build(tmp_path / "a.onnx", shape=(1, 3, 32, 48), closing=closing, constants={"first": np.array([0])})
    with pytest.raises(ValueError, match=r"output summary of shape \(5,\) has no row for each of 1 pictures"):
        load_encoder(f"onnx/{file}")


@pytest.mark.parametrize("size", [68, 70, 36, 100])
def test_a_size_that_is_no_multiple_of_the_stride_is_refused(size, tmp_path):
    """72 pixels in 9 rows of 8 are found by dividing, 36 pixels in 4 rows are not: 36 = 4 * 9."""
    file = build(tmp_path / "a.onnx")
    with pytest.raises(ValueError, match=f"multiples of 8, got {size}x{size}; .* would do"):
        load_encoder(f"onnx/{file}?size={size}")
    assert load_encoder(f"onnx/{file}?size=72").stride == SIDE


@pytest.mark.parametrize("true", [4, 7, 8, 14, 16, 20, 28, 32])
@pytest.mark.parametrize("rest", ["cut", "padded"])
def test_the_stride_is_found_from_any_picture(true, rest):
    def grid_of(height, width):
        return tuple(side // true if rest == "cut" else -(-side // true) for side in (height, width))

    for side in (70, 80, 96, 224, 225, 250):
        assert find_stride(grid_of, (side, side), grid_of(side, side), "model") == true


def test_a_model_that_takes_no_narrow_pictures_is_believed_where_the_grid_divides():
    assert find_stride(lambda height, width: None, (224, 224), (14, 14), "model") == 16
    with pytest.raises(ValueError, match="does not say the stride; give a multiple"):
        find_stride(lambda height, width: None, (70, 70), (4, 4), "model")


def test_a_program_of_torch_says_its_type(tmp_path):
    """The other runtime whose inputs can be of any type without a converter."""

    class Model(nn.Module):
        def forward(self, levels):
            maps = F.conv2d(levels.permute(0, 3, 1, 2).float() / 255, KERNEL, stride=SIDE)
            return maps.mean((2, 3)), maps

    example = torch.zeros(2, 32, 48, 3, dtype=torch.uint8)
    program = torch.export.export(Model(), (example,))
    facts = {torch_runtime.NAMES_FILE: '["summary", "patches"]', torch_runtime.FACTS_FILE: "{}"}
    torch.export.save(program, tmp_path / "a.pt2", extra_files=facts)
    check(load_encoder(f"torch/{tmp_path}/a.pt2"), (IMAGES * 255).round() / 255)
