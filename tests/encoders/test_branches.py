"""Branches: what GhostNetV3 trains in, counted against the published table, and the same for other compact CNNs."""

import pytest
import timm
import torch
import torchvision
from ghosts import WIDTHS, counts, ghostnet, randomised
from torch import nn

from eyespot.encoders import load_encoder, save_encoder
from eyespot.encoders.forms.branches import MultiBranchConv, add_branches, compact_pairs, ghost_pairs
from eyespot.encoders.forms.pairs import conv_norm_pairs
from eyespot.encoders.taps import stage_taps
from eyespot.randomness import torch_generator


def pair(c_in=6, c_out=6, kernel=3, stride=1, groups=6, bias=False):
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=bias)
    return conv, nn.BatchNorm2d(c_out, eps=1e-3, momentum=0.03)


@pytest.mark.parametrize(
    ("kind", "with_1x1", "with_identity"),
    [
        (dict(), True, True),  # the cheap operation of a ghost module
        (dict(stride=2, kernel=5), True, False),  # the strided depthwise convolution
        (dict(c_in=4, c_out=8, kernel=1, groups=1), False, False),  # the primary convolution
        (dict(kernel=1, groups=1), False, True),
        (dict(c_in=6, c_out=12, groups=3, bias=True), True, False),
    ],
)
def test_the_branches_of_each_kind_and_their_one_convolution(kind, with_1x1, with_identity):
    multi = randomised(MultiBranchConv(*pair(**kind), branches=3)).double().eval()
    assert len(multi.branches) == 3 + with_1x1
    assert (multi.identity is not None) == with_identity
    one = multi.fuse()
    assert type(one) is nn.Conv2d and one.bias is not None
    images = torch.randn(2, multi.branches[0][0].in_channels, 9, 12, dtype=torch.float64)
    with torch.no_grad():
        expected = sum(branch(images) for branch in multi.branches)
        expected = expected + multi.identity(images) if with_identity else expected
        assert torch.equal(multi(images), expected)
        torch.testing.assert_close(one(images), expected, rtol=0, atol=1e-12)


def test_the_pair_is_the_first_branch_and_lends_the_others_its_settings():
    conv, norm = pair()
    randomised(norm)
    multi = MultiBranchConv(conv, norm, branches=2)
    first, second, pointwise = multi.branches
    images = torch.randn(1, 6, 5, 5)
    with torch.no_grad():
        torch.testing.assert_close(first.eval()(images), norm.eval()(conv(images)))
    assert pointwise[0].kernel_size == (1, 1) and pointwise[0].groups == 6
    assert {(part[1].eps, part[1].momentum) for part in multi.branches} == {(1e-3, 0.03)}
    assert not torch.equal(first[0].weight, second[0].weight)


@pytest.mark.parametrize(
    "conv", [nn.Conv2d(4, 4, 2), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, padding="same"), nn.Conv2d(4, 4, 1, padding=1)]
)
def test_a_kernel_off_its_pixel_is_refused(conv):
    with pytest.raises(ValueError, match="centred"):
        MultiBranchConv(conv, nn.BatchNorm2d(4))


def test_less_than_one_branch_is_refused():
    with pytest.raises(ValueError, match="1 or more"):
        MultiBranchConv(*pair(), branches=0)


# GhostNetV3 notes, section (h): parameters and 10^6 multiply-accumulates with 1000 classes at 224 px
V1 = {0.5: (2_587_292, 42.3), 1.0: (5_182_508, 141.2), 1.3: (7_358_820, 227.0), 1.6: (9_998_746, 335.1)}
V2 = {0.5: (2_857_836, 49.6), 1.0: (6_156_908, 167.0), 1.3: (8_960_404, 269.3), 1.6: (12_392_698, 398.6)}
V3 = {0.5: (3_395_384, 117.5), 1.0: (8_129_028, 404.1), 1.3: (12_217_720, 654.8), 1.6: (17_275_700, 971.6)}
GATES = {0.5: 270_544, 1.0: 974_400, 1.3: 1_601_584, 1.6: 2_393_952}


@pytest.mark.parametrize("width", WIDTHS)
def test_ghostnets_of_timm_have_the_published_counts(width):
    for version, table in (("v1", V1), ("v2", V2), ("v3", V3)):
        parameters, macs = counts(ghostnet(version, width))
        assert (parameters, round(macs / 1e6, 1)) == table[width]
    assert V2[width][0] - V1[width][0] == GATES[width]


@pytest.mark.parametrize("width", WIDTHS)
def test_v2_with_branches_is_v3(width):
    model = add_branches(ghostnet("v2", width))
    parameters, macs = counts(model)
    assert (parameters, round(macs / 1e6, 1)) == V3[width]
    v3 = ghostnet("v3", width)
    norms = [sum(isinstance(part, nn.BatchNorm2d) for part in net.modules()) for net in (model, v3)]
    assert norms[0] == norms[1]
    sizes = [sorted(tuple(value.shape) for value in net.state_dict().values()) for net in (model, v3)]
    assert sizes[0] == sizes[1]


def test_timms_v3_has_the_branches_of_the_paper():
    block = ghostnet("v3", 1.0).blocks[3][0]  # k 5, stride 2, squeeze-and-excitation, gated
    ghost = block.ghost1
    assert len(ghost.primary_rpr_conv) == len(ghost.cheap_rpr_conv) == len(block.dw_rpr_conv) == 3
    assert ghost.primary_rpr_scale is None and ghost.primary_rpr_skip is None
    assert ghost.cheap_rpr_scale.conv.kernel_size == (1, 1) and isinstance(ghost.cheap_rpr_skip, nn.BatchNorm2d)
    assert block.dw_rpr_scale.conv.stride == (2, 2) and block.dw_rpr_scale.conv.kernel_size == (1, 1)
    assert block.dw_rpr_skip is None
    gates = [
        [hasattr(module, "short_conv") and isinstance(module.short_conv, nn.Sequential) for module in two]
        for two in ((part.ghost1, part.ghost2) for stage in ghostnet("v3", 1.0).blocks[:-1] for part in stage)
    ]
    assert gates == [[False, False]] * 2 + [[True, False]] * 14


def test_the_paper_chooses_in_ghostnets():
    chosen = [pair.conv_name for pair in ghost_pairs(conv_norm_pairs(ghostnet("v2", 0.5), (224, 224)))]
    assert len(chosen) == 32 * 2 + 4  # 32 ghost modules, 4 strided blocks
    assert not [name for name in chosen if "short" in name or "stem" in name or "blocks.9" in name]


def test_stem_head_and_shortcuts_stay_in_other_networks():
    mobile, resnet = timm.create_model("mobilenetv2_035"), timm.create_model("resnet26t")
    shuffle = torchvision.models.shufflenet_v2_x0_5()
    chosen = {pair.conv_name for pair in compact_pairs(conv_norm_pairs(mobile, (64, 64)))}
    assert len(chosen) == 2 + 16 * 3
    assert not chosen & {"conv_stem", "conv_head"}
    chosen = {pair.conv_name for pair in compact_pairs(conv_norm_pairs(shuffle, (64, 64)))}
    assert len(chosen) == 3 * 5 + 13 * 3
    assert not chosen & {"conv1.0", "conv5.0"}
    chosen = {pair.conv_name for pair in compact_pairs(conv_norm_pairs(resnet, (64, 64)))}
    assert chosen and not [name for name in chosen if "downsample" in name or "conv2" in name]


def test_what_cannot_have_branches_is_refused():
    with pytest.raises(ValueError, match="branches already"):
        add_branches(ghostnet("v3", 0.5))
    with pytest.raises(ValueError, match="branches already"):
        add_branches(add_branches(ghostnet("v2", 0.5)))
    with pytest.raises(ValueError, match="choose="):
        add_branches(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))


def test_ones_own_choice():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    add_branches(model, 2, choose=list, size=(8, 8))
    assert isinstance(model[0], MultiBranchConv) and isinstance(model[1], nn.Identity)
    assert model(torch.rand(2, 3, 8, 8)).shape == (2, 4, 8, 8)


STUDENTS = (
    "timm/mobilenetv2_035?pretrained=false&branches=2",
    "timm/ghostnetv3_050?pretrained=false&stem_stride=1",
    "python/eyespot.encoders.shufflenet:shufflenet_v2?width=0.5&branches=2&stem_stride=1",
)


@pytest.mark.parametrize("spec", STUDENTS)
def test_students_train_and_are_saved_as_they_are(spec, tmp_path):
    student = load_encoder(spec).train()
    features = student(torch.rand(2, 3, 64, 64, generator=torch_generator("pictures")))
    (features.summary.square().mean() + features.patches.square().mean()).backward()
    assert all(weight.grad is not None for weight in student.parameters())
    student.eval()
    loaded = load_encoder(f"run/{save_encoder(student, tmp_path / 'student')}")
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(loaded(images).summary, student(images).summary)


def test_the_spec_says_what_a_student_is():
    encoder = load_encoder("timm/mobilenetv2_035?pretrained=false&branches=2")
    assert encoder.model_args == {"branches": 2}
    assert sum(isinstance(part, MultiBranchConv) for part in encoder.model.modules()) == 2 + 16 * 3
    with pytest.raises(ValueError, match="pretrained=false"):
        load_encoder("timm/mobilenetv2_035?branches=2")


def test_small_pictures():
    plain = load_encoder("timm/ghostnetv3_050?pretrained=false")
    assert plain.model.drop_rate == 0 and plain.model_args == {"drop_rate": 0.0}  # no dropout in V3
    assert plain.fitting_size(32) == (64, 64)
    with pytest.raises(ValueError, match="64x64 would do; stem_stride=1"):
        plain(torch.rand(1, 3, 32, 64))
    small = load_encoder("timm/ghostnetv3_050?pretrained=false&stem_stride=1")
    assert (small.stride, small.fitting_size(32)) == (16, (32, 32))
    assert small(torch.rand(2, 3, 32, 32)).patches.shape == (2, 480, 2, 2)
    assert [tuple(part.shape[2:]) for part in small.intermediates(torch.rand(1, 3, 32, 32), (1, 4))] == [
        (16, 16),
        (2, 2),
    ]
    with pytest.raises(ValueError, match=r"32x32 would do$"):
        small(torch.rand(1, 3, 16, 16))


@pytest.mark.parametrize("spec", ["timm/resnet10t?pretrained=false&stem_stride=1", STUDENTS[1] + "&stem_stride=3"])
def test_stems_that_have_no_such_stride(spec):
    with pytest.raises(ValueError, match="stem_stride"):
        load_encoder(spec)


def test_shufflenets():
    encoder = load_encoder("python/eyespot.encoders.shufflenet:shufflenet_v2?width=0.5&num_classes=7")
    features = encoder(torch.rand(2, 3, 64, 96))
    assert features.logits.shape == (2, 7) and features.patches.shape == (2, 1024, 2, 3)
    torch.testing.assert_close(features.summary, features.patches.mean((2, 3)))
    own = torchvision.models.shufflenet_v2_x0_5(num_classes=7)
    assert {name: value.shape for name, value in encoder.model.state_dict().items()} == {
        name: value.shape for name, value in own.state_dict().items()
    }
    own.load_state_dict(encoder.model.state_dict())
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(encoder(images).logits, own.eval()((images - encoder.mean) / encoder.std))
    maps = encoder.intermediates(images, (0, 1, 2, 3))
    assert [tuple(part.shape[1:]) for part in maps] == [(24, 16, 16), (48, 8, 8), (96, 4, 4), (192, 2, 2)]
    assert stage_taps(encoder) == ("model.maxpool", "model.stage2", "model.stage3", "model.stage4")
    with pytest.raises(ValueError, match="0 to 3"):
        encoder.intermediates(images, (4,))
    for wrong in ("width=0.7", "stem_stride=4"):
        with pytest.raises(ValueError, match=wrong.split("=")[1]):
            load_encoder(f"python/eyespot.encoders.shufflenet:shufflenet_v2?{wrong}")


def widths_of(model):
    """(in, expanded, out) of every block, and the widths of stem and last 1x1 convolution."""
    blocks = [block for stage in model.blocks for block in stage if hasattr(block, "ghost1")]
    inputs = [block.ghost1.primary_conv[0].in_channels for block in blocks]
    found = [
        (entering, block.ghost1.out_chs, block.ghost2.out_chs) for entering, block in zip(inputs, blocks, strict=True)
    ]
    return found, model.conv_stem.out_channels, model.conv_head.in_channels


def test_widths_of_the_blocks():
    narrow, usual, wide = (widths_of(ghostnet("v2", width)) for width in (0.5, 1.3, 1.6))
    tail = [(104, 624, 144), (144, 872, 144), (144, 872, 208), *[(208, 1248, 208)] * 4]
    head = [(20, 20, 20), (20, 64, 32), (32, 92, 32), (32, 92, 52), (52, 156, 52), (52, 312, 104), (104, 260, 104)]
    assert usual == ([*head, *[(104, 240, 104)] * 2, *tail], 20, 1248)
    assert wide[1:] == (24, 1536) and narrow[1:] == (8, 480)
    assert {(40, 116, 40), (128, 296, 128), (180, 1076, 256)} <= set(wide[0])
