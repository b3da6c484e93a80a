from functools import cache

import pytest
import torch
from torch import nn

from eyespot import Encoder, Features
from eyespot.distill.classes.outputs import OutputShape, output_shape
from eyespot.encoders import load_encoder
from eyespot.encoders.headed import HeadedEncoder
from eyespot.encoders.taps import Taps, equal_blocks, four_of, stage_taps
from eyespot.engine import units
from eyespot.engine.task import Task


@cache
def on_meta(spec):
    with torch.device("meta"):
        return load_encoder(f"timm/{spec}{'&' if '?' in spec else '?'}pretrained=false")


def maps(*widths, first=56):
    return tuple((width, first >> step, first >> step) for step, width in enumerate(widths))


SWIN = "swin_tiny_patch4_window7_224?depths=2,2,2,2&num_heads=2,4,8,16&embed_dim"


def swin(width):
    return tuple((3136 >> 2 * step, width << step) for step in range(4))


@pytest.mark.parametrize(
    ("spec", "shapes", "prefix"),
    [
        ("resnet18", maps(64, 128, 256, 512), 0),
        ("resnet34", maps(64, 128, 256, 512), 0),
        ("resnet50", maps(256, 512, 1024, 2048), 0),
        ("resnet101", maps(256, 512, 1024, 2048), 0),
        ("mobilenetv2_100", maps(24, 32, 96, 1280), 0),
        ("mobilenetv1_100", maps(128, 256, 512, 1024), 0),
        ("convnext_tiny", maps(96, 192, 384, 768), 0),
        ("convnext_base", maps(128, 256, 512, 1024), 0),
        ("vit_small_patch16_224", ((197, 384),) * 4, 1),
        ("vit_base_patch16_224", ((197, 768),) * 4, 1),
        ("deit_tiny_patch16_224", ((197, 192),) * 4, 1),
        ("beitv2_base_patch16_224", ((197, 768),) * 4, 1),
        ("beitv2_large_patch16_224", ((197, 1024),) * 4, 1),
        ("mixer_b16_224", ((196, 768),) * 4, 0),
        ("resmlp_12_224", ((196, 384),) * 4, 0),
        ("swin_tiny_patch4_window7_224", swin(96), 0),
        ("swin_base_patch4_window7_224", swin(128), 0),
        (f"{SWIN}=64", swin(64), 0),
        (f"{SWIN}=48", swin(48), 0),
        ("vit_small_patch16_dinov3", ((201, 384),) * 4, 5),
        ("volo_d1_224", ((784, 192), *((196, 384),) * 3), 0),
        ("efficientformer_l1", (*maps(48, 96, 224), (49, 448)), 0),
    ],
)
def test_shapes_at_224(spec, shapes, prefix):
    """OFA-KD's table, and families beside it."""
    encoder = on_meta(spec)
    shape = output_shape(encoder, Taps(encoder), 224)
    assert shape == OutputShape(encoder.num_classes, encoder.summary_dim, shapes, prefix)


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("resnet18", ["layer1", "layer2", "layer3", "layer4"]),
        ("vit_small_patch16_224", ["blocks.1", "blocks.3", "blocks.9", "blocks.11"]),
        ("beitv2_large_patch16_224", ["blocks.1", "blocks.3", "blocks.21", "blocks.23"]),
        ("resmlp_12_224", ["blocks.1", "blocks.3", "blocks.9", "blocks.11"]),
        ("mobilenetv2_100", ["blocks.1", "blocks.2", "blocks.4", "bn2"]),
        ("swin_tiny_patch4_window7_224", ["layers.0", "layers.1", "layers.2", "layers.3"]),
        ("mvitv2_tiny", ["stages.0", "stages.1", "stages.2", "stages.3"]),
    ],
)
def test_names(spec, names):
    assert stage_taps(on_meta(spec)) == tuple(f"model.{name}" for name in names)


@pytest.mark.parametrize(
    ("spec", "blocks"),
    [("vit_small_patch16_224", 12), ("beitv2_large_patch16_224", 24), ("resmlp_12_224", 12)],
)
def test_equal_blocks(spec, blocks):
    assert equal_blocks(on_meta(spec)) == tuple(f"model.blocks.{number}" for number in range(blocks))


@pytest.mark.parametrize("spec", ["resnet18", "swin_tiny_patch4_window7_224", "mobilenetv2_100"])
def test_stages_are_no_equal_blocks(spec):
    assert equal_blocks(on_meta(spec)) == ()


def test_mobilenetv2_counts_blocks_as_the_paper_does():
    """Flat blocks 2, 5 and 12 are the last ones of stages 1, 2 and 4."""
    flat = [
        f"blocks.{s}.{b}" for s, stage in enumerate(on_meta("mobilenetv2_100").model.blocks) for b in range(len(stage))
    ]
    assert [flat[number] for number in (2, 5, 12)] == ["blocks.1.1", "blocks.2.2", "blocks.4.2"]


def test_swin_is_tapped_before_its_merging():
    model = on_meta("swin_tiny_patch4_window7_224").model
    assert [type(stage.downsample) is nn.Identity for stage in model.layers] == [True, False, False, False]
    assert next(iter(dict(model.layers[1].named_children()))) == "downsample"


@pytest.mark.parametrize(
    ("depth", "blocks"),
    [
        (3, ()),
        (4, (0, 1, 2, 3)),
        (5, (1, 2, 3, 4)),
        (6, (1, 2, 4, 5)),
        (7, (1, 3, 5, 6)),
        (8, (1, 3, 5, 7)),
        (12, (1, 3, 9, 11)),
        (24, (1, 3, 21, 23)),
        (40, (1, 3, 37, 39)),
    ],
)
def test_which_of_equal_blocks(depth, blocks):
    assert four_of(depth) == blocks


@pytest.mark.parametrize("spec", ["hiera_tiny_224", "levit_128s", "hrnet_w18_small", "vit_tiny_patch16_224?depth=3"])
def test_no_four_stages(spec):
    with pytest.raises(ValueError, match=r"no four stages or blocks to tap.*name four of its modules.*model\."):
        Taps(on_meta(spec))


class TokenEncoder(Encoder):
    """Blocks in a list that no library knows, with a class token in front; they give tuples, as transformers' do."""

    def __init__(self, depth=6, width=8, block=None):
        super().__init__()
        self.name, self.summary_dim, self.patch_dim, self.stride, self.default_size = "own", width, width, 8, (32, 32)
        self.embed = nn.Conv2d(3, width, 8, 8)
        self.layers = nn.ModuleList(block or Block(width) for _ in range(depth))

    def _encode(self, images):
        maps = self.embed(images)
        tokens = maps.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1)
        for layer in self.layers:
            tokens = layer(tokens)[0]
        return Features(tokens[:, 0], tokens[:, 1:].transpose(1, 2).unflatten(2, maps.shape[2:]))


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens):
        return tokens + self.mlp(tokens), "weights"


def test_an_encoder_of_ones_own():
    encoder = TokenEncoder()
    taps = Taps(encoder)
    assert taps.names == ("layers.1", "layers.2", "layers.4", "layers.5")
    assert output_shape(encoder, taps) == OutputShape(0, 8, ((17, 8),) * 4, prefix_tokens=1)


def test_through_an_encoder_with_a_new_head():
    """The stages are those of the encoder inside; Swin's maps are tokens there as well."""
    inside = load_encoder(f"timm/{SWIN}=16&img_size=64&window_size=2&pretrained=false")
    headed = HeadedEncoder(inside, 5)
    taps = Taps(headed)
    assert taps.names == tuple(f"encoder.{name}" for name in stage_taps(inside))
    assert output_shape(headed, taps, 64) == OutputShape(5, 128, ((256, 16), (64, 32), (16, 64), (4, 128)))


def test_outputs_are_those_of_the_modules():
    encoder = TokenEncoder()
    features, tapped = Taps(encoder)(torch.rand(2, 3, 32, 32))
    torch.testing.assert_close(tapped[-1][:, 1:].transpose(1, 2).unflatten(2, (4, 4)), features.patches)
    torch.testing.assert_close(encoder.layers[5](encoder.layers[4](encoder.layers[3](tapped[1])[0])[0])[0], tapped[3])


@pytest.mark.parametrize("size", [(32, 64), (64, 32), (48, 40)])
def test_pictures_that_are_not_square(size):
    encoder = load_encoder("timm/test_convnext?pretrained=false")
    sides = encoder.fitting_size(size)
    features, tapped = Taps(encoder)(torch.rand(1, 3, *sides))
    assert tapped[-1].shape == features.patches.shape


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["layers.9"], r"no module 'layers.9' to tap; name four of its modules.*layers.0"),
        (["embed", "layer.1"], r"no module 'layer.1'"),
    ],
)
def test_names_that_are_not_there(names, said):
    with pytest.raises(ValueError, match=said):
        Taps(TokenEncoder(), names)


@pytest.mark.parametrize(
    ("name", "said"),
    [("layers", "did not run"), ("mean_pool", "gives \\(2, 8\\)"), ("words", "gives str")],
)
def test_modules_that_give_no_map(name, said):
    class Odd(TokenEncoder):
        def __init__(self):
            super().__init__()
            self.mean_pool = nn.AdaptiveAvgPool1d(1)
            self.words = Words()

        def _encode(self, images):
            features = super()._encode(images)
            self.words()
            return features

    encoder = Odd()
    encoder.mean_pool.forward = lambda: torch.zeros(2, 8)
    encoder.words.pool = encoder.mean_pool
    with pytest.raises(ValueError, match=said):
        Taps(encoder, [name])(torch.rand(2, 3, 32, 32))


class Words(nn.Module):
    def forward(self):
        self.pool()
        return "nothing"


class Plain(Task):
    def __init__(self, student):
        super().__init__()
        self.student = student

    def forward(self, batch):
        return {}

    @property
    def students(self):
        return {"student": self.student}


def hooks(encoder):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in encoder.modules())


SPECS = ["test_resnet", "test_vit", "test_convnext", "mobilenetv2_050", "own"]


def small(spec):
    torch.manual_seed(0)
    return (TokenEncoder() if spec == "own" else load_encoder(f"timm/{spec}?pretrained=false")).train()


def steps(encoder, count=2):
    """Tapped outputs and gradients of some passes, without randomness inside."""
    taps = Taps(encoder)
    size = encoder.fitting_size(64)
    given = []
    for step in range(count):
        encoder.zero_grad()
        images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(step))
        torch.manual_seed(0)
        _, tapped = taps(images)
        sum(tap.square().mean() for tap in tapped).backward()
        gradients = [weight.grad.clone() for weight in encoder.parameters() if weight.grad is not None]
        given.append(([tap.detach() for tap in tapped], gradients))
    return given


@pytest.mark.parametrize(
    ("spec", "way"),
    [*((spec, "checkpointed") for spec in SPECS), ("own", "compiled"), ("test_vit", "compiled"), ("own", "both")],
)
def test_the_same_outputs_and_gradients_however_it_is_run(spec, way, monkeypatch):
    monkeypatch.setattr(units, "BACKEND", "aot_eager")
    wanted = steps(small(spec))
    encoder = small(spec)
    if way != "compiled":
        units.checkpoint_activations(Plain(encoder))
    if way != "checkpointed":
        units.compile_units(Plain(encoder))
    given = steps(encoder)
    torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-5)
    assert hooks(encoder) == 0


def test_nothing_stays_behind_after_an_error():
    encoder = TokenEncoder()
    encoder.layers[3].forward = lambda tokens: tokens.no_such_thing
    with pytest.raises(AttributeError):
        Taps(encoder)(torch.rand(1, 3, 32, 32))
    assert hooks(encoder) == 0


def test_watching_changes_nothing():
    encoder = small("test_vit").eval()
    images = torch.rand(2, 3, *encoder.default_size)
    with torch.no_grad():
        alone = encoder(images)
        features, tapped = Taps(encoder)(images)
    assert torch.equal(alone.summary, features.summary) and torch.equal(alone.patches, features.patches)
    assert not any(tap.requires_grad for tap in tapped)


def test_under_autocast():
    encoder = small("test_resnet")
    with torch.autocast("cpu", torch.bfloat16):
        _, tapped = Taps(encoder)(torch.rand(2, 3, 64, 64))
    assert all(tap.isfinite().all() for tap in tapped)


def test_measuring_leaves_statistics_and_modes_alone():
    encoder = small("test_resnet")
    encoder.model.layer2.eval()
    modes = [module.training for module in encoder.modules()]
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    shape = output_shape(encoder, Taps(encoder), 64)
    assert [module.training for module in encoder.modules()] == modes
    assert all(torch.equal(state[name], value) for name, value in encoder.state_dict().items())
    assert shape.taps[0][1:] == (16, 16) and output_shape(encoder, size=64).taps == ()
