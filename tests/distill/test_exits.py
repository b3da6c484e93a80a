"""OFA-KD's exits; the counts are those of `ofakd.md`, section (h), in millions."""

import itertools
from dataclasses import replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eyespot.distill.classes.config import MethodSettings
from eyespot.distill.classes.exits import MapExit, Merging, SeparableConv, TokenExit, grid_side
from eyespot.distill.classes.logit_losses import ofa
from eyespot.distill.classes.methods import make_method
from eyespot.distill.classes.outputs import ClassifierOutput, OutputShape, output_shape
from eyespot.encoders import load_encoder
from eyespot.encoders.taps import Taps

SWIN = "swin_tiny_patch4_window7_224?depths=2,2,2,2&num_heads=2,4,8,16&embed_dim"
SPECS = {
    "resnet18": "resnet18",
    "mobilenetv2": "mobilenetv2_100",
    "deit_tiny": "deit_tiny_patch16_224",
    "swin_nano": f"{SWIN}=64",
    "swin_pico": f"{SWIN}=48",
    "resmlp_s12": "resmlp_12_224",
}
WIDTHS = {"deit_tiny": 192, "swin_tiny": 768, "mixer_b": 768, "vit_small": 384, "resnet50": 2048, "convnext_tiny": 768}
"""Of the teachers' summaries: all that exits need to know of them."""


@cache
def measured(student):
    """(millions of parameters of the encoder without head, its shape at 224)."""
    spec = SPECS[student]
    with torch.device("meta"):
        encoder = load_encoder(f"timm/{spec}{'&' if '?' in spec else '?'}pretrained=false")
    return sum(map(torch.Tensor.numel, encoder.parameters())), output_shape(encoder, Taps(encoder), 224)


TABLE = [
    (1000, ["deit_tiny"], "resnet18", 11.690, 3.041, (0.782, 0.768, 0.716, 0.776)),
    (1000, ["swin_tiny", "mixer_b"], "resnet18", 11.690, 4.395, (1.104, 1.090, 1.038, 1.163)),
    (1000, ["deit_tiny", "swin_tiny", "mixer_b"], "mobilenetv2", 3.505, 7.141, (1.428, 1.375, 1.418, 2.921)),
    (1000, ["resnet50", "convnext_tiny", "mixer_b"], "deit_tiny", 5.717, 4.478, (1.675, 1.231, 0.786, 0.786)),
    (1000, ["resnet50", "convnext_tiny", "mixer_b"], "swin_nano", 9.600, 28.187, (12.202, 8.131, 4.190, 3.664)),
    (1000, ["resnet50", "convnext_tiny", "swin_tiny"], "resmlp_s12", 15.351, 16.325, (6.298, 4.525, 2.751, 2.751)),
    (100, ["swin_tiny", "mixer_b"], "resnet18", 11.228, 1.626, (0.412, 0.398, 0.346, 0.471)),
    (100, ["vit_small"], "resnet18", 11.228, 1.194, (0.320, 0.306, 0.254, 0.314)),
    (100, ["convnext_tiny", "mixer_b"], "swin_pico", 5.160, 14.865, (6.618, 4.326, 2.108, 1.812)),
    (100, ["convnext_tiny", "mixer_b"], "deit_tiny", 5.544, 3.783, (1.501, 1.057, 0.613, 0.613)),
    (100, ["convnext_tiny", "swin_tiny"], "resmlp_s12", 15.004, 14.939, (5.951, 4.178, 2.405, 2.405)),
]
PAIRS = [(teacher, *row[:1], *row[2:]) for row in TABLE for teacher in row[1]]


@pytest.mark.parametrize(
    ("teacher", "classes", "student", "size", "extra", "stages"), PAIRS, ids=[f"{p[0]}-{p[2]}-{p[1]}" for p in PAIRS]
)
def test_published_parameter_counts(teacher, classes, student, size, extra, stages):
    body, shape = measured(student)
    with torch.device("meta"):
        shape = replace(shape, num_classes=classes)
        method = make_method("ofa", MethodSettings(), shape, OutputShape(classes, WIDTHS[teacher]), 1)
    counts = [sum(map(torch.Tensor.numel, leave.parameters())) for leave in method.exits]
    assert round((body + (shape.summary + 1) * classes) / 1e6, 3) == size
    assert tuple(round(count / 1e6, 3) for count in counts) == stages
    assert round(sum(counts) / 1e6, 3) == extra


def test_layers_of_a_map_exit():
    leave = MapExit(2, 8, 40, 5)
    assert [type(layer) for layer in leave] == [*[SeparableConv] * 2, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear]
    convolutions = [layer for layer in leave.modules() if isinstance(layer, nn.Conv2d)]
    sizes = [(layer.in_channels, layer.out_channels, layer.kernel_size[0], layer.stride[0]) for layer in convolutions]
    assert sizes[:4] == [(8, 8, 3, 2), (8, 8, 1, 1), (8, 8, 3, 1), (8, 16, 1, 1)]
    assert sizes[4:] == [(16, 16, 3, 2), (16, 16, 1, 1), (16, 16, 3, 1), (16, 40, 1, 1)]
    assert all(layer.bias is None for layer in convolutions)
    last = MapExit(4, 8, 40, 5)
    assert [type(layer) for layer in last] == [nn.Conv2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear]
    assert last[0].bias is not None


@pytest.mark.parametrize("grid", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_maps_of_any_grid(stage, grid):
    assert MapExit(stage, 4, 12, 5)(torch.randn(2, 4, grid, grid)).shape == (2, 5)


@pytest.mark.parametrize(
    ("grid", "merges"), [(1, 0), (2, 0), (4, 0), (7, 0), (8, 0), (13, 0), (14, 1), (16, 1), (27, 1), (28, 2), (56, 3)]
)
def test_merging_towards_seven(grid, merges):
    leave = TokenExit(4, (grid * grid, 8), 0, 8, 5)
    assert len(leave.merging) == merges
    assert leave(torch.randn(2, grid * grid, 8)).shape == (2, 5)
    side = grid
    for _ in range(merges):
        side = -(-side // 2)
    assert leave.merging(torch.randn(1, grid * grid, 8)).shape == (1, side * side, 8)


@pytest.mark.parametrize(
    ("grid", "activations"),
    [(14, [nn.GELU]), (28, [nn.GELU, nn.Identity]), (56, [nn.GELU, nn.GELU, nn.Identity])],
)
def test_the_last_of_several_mergings_has_no_activation(grid, activations):
    leave = TokenExit(1, (grid * grid, 4), 0, 8, 5)
    assert [type(merging.activation) for merging in leave.merging] == activations
    assert [merging.linear.in_features for merging in leave.merging] == [16, 32, 32][: len(activations)]
    assert all(merging.linear.bias is None for merging in leave.merging)


def test_neighbours_are_joined_column_by_column():
    """(0, 0), (1, 0), (0, 1), (1, 1) as (row, column)."""
    merging = Merging(1, 4, 2, nn.Identity())
    merging.norm = nn.Identity()
    nn.init.eye_(merging.linear.weight)
    tokens = torch.arange(16.0).view(1, 16, 1)
    wanted = [[0, 4, 1, 5], [2, 6, 3, 7], [8, 12, 9, 13], [10, 14, 11, 15]]
    assert merging(tokens)[0].tolist() == wanted


def test_odd_sides_are_padded_with_zeros():
    merging = Merging(1, 4, 2, nn.Identity())
    merging.norm = nn.Identity()
    nn.init.eye_(merging.linear.weight)
    assert merging(torch.arange(1.0, 10).view(1, 9, 1))[0].tolist() == [
        [1, 4, 2, 5],
        [3, 6, 0, 0],
        [7, 0, 8, 0],
        [9, 0, 0, 0],
    ]


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_blocks_of_a_token_exit(stage):
    leave = TokenExit(stage, (197, 16), 1, 16, 5)
    assert len(leave.blocks) == {1: 3, 2: 2, 3: 1, 4: 1}[stage]
    for block in leave.blocks:
        assert block.attn.num_heads == 4 and block.attn.qkv.bias is None and block.attn.proj.bias is not None
        assert block.mlp.fc1.out_features == 64


def test_the_class_token_goes_around_the_merging_and_alone_speaks():
    leave = TokenExit(3, (197, 16), 1, 16, 5).eval()
    leave.blocks = nn.Sequential()
    tokens = torch.randn(2, 197, 16)
    torch.testing.assert_close(leave(tokens), leave.head(tokens[:, 0]))


def test_without_class_token_the_mean_speaks():
    leave = TokenExit(4, (49, 16), 0, 16, 5).eval()
    leave.blocks = nn.Sequential()
    tokens = torch.randn(2, 49, 16)
    torch.testing.assert_close(leave(tokens), leave.head(tokens.mean(1)))


def test_prefix_tokens_of_another_width_are_left_out():
    leave = TokenExit(4, (18, 6), 2, 8, 5).eval()
    tokens = torch.randn(2, 18, 6)
    other = torch.cat([torch.randn(2, 2, 6), tokens[:, 2:]], 1)
    torch.testing.assert_close(leave(tokens), leave(other))


def test_a_width_that_four_heads_do_not_divide():
    assert TokenExit(1, (16, 6), 0, 6, 5)(torch.randn(1, 16, 6)).shape == (1, 5)


@pytest.mark.parametrize("tokens", [0, 2, 15])
def test_tokens_that_are_no_grid(tokens):
    with pytest.raises(ValueError, match="square"):
        grid_side(tokens)


def test_initial_weights():
    torch.manual_seed(0)
    leave = TokenExit(1, (196, 64), 0, 64, 100)
    for layer in filter(lambda module: isinstance(module, nn.Linear), leave.modules()):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert layer.bias is None or not layer.bias.any()
    leave = MapExit(1, 16, 256, 100)
    for layer in filter(lambda module: isinstance(module, nn.Conv2d), leave.modules()):
        fan_out = layer.out_channels * layer.kernel_size[0] ** 2
        assert layer.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.15)


def test_exponents_go_to_stages_in_order_and_the_last_to_the_logits():
    shape = OutputShape(5, 8, ((4, 4, 4), (4, 4, 4), (8, 2, 2), (8, 2, 2)))
    settings = MethodSettings(
        stages=(2, 4),
        ofa_exponents=(1.2, 1.3, 1.5),
        ofa_stage_weight=0.1,
        weight=2.0,
        temperature=3.0,
        ofa_form="paper",
    )
    method = make_method("ofa", settings, shape, OutputShape(5, 3), 1).eval()
    seen = ClassifierOutput(torch.randn(3, 5), torch.randn(3, 8), tuple(torch.randn(3, *tap) for tap in shape.taps))
    teacher, target = torch.randn(3, 5), torch.tensor([0, 3, 1])
    terms = method(seen, ClassifierOutput(teacher, torch.randn(3, 3)), target, torch.arange(3))
    exits = [leave(seen.taps[stage]) for leave, stage in zip(method.exits, (1, 3), strict=True)]
    wanted = sum(ofa(z, teacher, target, e, 3.0, "paper") for z, e in zip(exits, (1.2, 1.3), strict=True))
    torch.testing.assert_close(terms["ofa"], 0.1 * wanted)
    torch.testing.assert_close(terms["kd"], 2 * ofa(seen.logits, teacher, target, 1.5, 3.0, "paper"))


SMALL = {
    "cnn": ("resnet18", 64),
    "vit of 64 pixels": ("vit_tiny_patch16_224", 64),
    "swin of 64 pixels": (f"{SWIN}=16&img_size=64&window_size=2", 64),
    "mixed": ("efficientformer_l1", 224),
}


@pytest.mark.parametrize("student", SMALL)
def test_real_students_of_small_pictures(student):
    """From the picture to the exits and back; every weight of the stages and of the exits gets a gradient."""
    spec, size = SMALL[student]
    torch.manual_seed(0)
    encoder = load_encoder(f"timm/{spec}{'&' if '?' in spec else '?'}pretrained=false").train()
    taps = Taps(encoder)
    shape = replace(output_shape(encoder, taps, size), num_classes=5)
    method = make_method("ofa", MethodSettings(), shape, OutputShape(5, 24), 1)
    features, tapped = taps(torch.rand(2, 3, size, size))
    logits = F.pad(features.summary, (0, 5))[:, -5:]
    terms = method(
        ClassifierOutput(logits, features.summary, tapped),
        ClassifierOutput(torch.randn(2, 5), torch.randn(2, 24)),
        torch.zeros(2).long(),
        torch.zeros(2).long(),
    )
    terms["ofa"].backward()
    weights = itertools.chain(method.parameters(), encoder.get_submodule(taps.names[0]).parameters())
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in weights)
