import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eyespot.deploy.formats import FORMATS
from eyespot.deploy.graph import exportable, trace
from eyespot.deploy.sensitivity import Layer, fallback, rank_layers
from eyespot.encoders import Encoder, load_encoder
from eyespot.features import Features

SIZE = (64, 64)


@pytest.fixture(scope="module")
def pictures():
    return list(torch.rand(2, 1, 3, *SIZE, generator=torch.Generator().manual_seed(0)))


def encoder_of(name):
    torch.manual_seed(0)
    return load_encoder(f"timm/{name}?pretrained=false").eval()


def layers_of(encoder):
    return {name: module for name, module in encoder.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}


def rounded(values, low, high, steps):
    """Affine rounding, by its definition."""
    scale = (high - low) / steps
    offset = torch.round(-low / scale)
    return ((values / scale).round() + offset).clamp(0, steps).sub(offset) * scale


def damage_by_hand(encoder, name, pictures):
    """The layer's module changed in place of the graph: weights rounded, its input rounded by a hook."""
    changed = copy.deepcopy(encoder)
    layer = layers_of(changed)[name]
    seen = []
    recording = layer.register_forward_pre_hook(lambda module, args: seen.append(args[0].aminmax()))
    plain = [changed(images) for images in pictures]
    recording.remove()
    low, high = min(0.0, *(span.min for span in seen)), max(0.0, *(span.max for span in seen))
    weight = layer.weight.data
    largest = weight.flatten(1).abs().amax(1).view(-1, *[1] * (weight.ndim - 1))
    layer.weight.data = (weight / (largest / 127)).round() * (largest / 127)
    layer.register_forward_pre_hook(lambda module, args: (rounded(args[0], low, high, 255),))
    found = [changed(images) for images in pictures]
    pairs = list(zip(found, plain, strict=True))
    summary = torch.stack([F.cosine_similarity(a.summary.double(), b.summary.double()).mean() for a, b in pairs])
    patches = torch.stack([F.cosine_similarity(a.patches.double(), b.patches.double()).mean() for a, b in pairs])
    return 1 - float(summary.mean()), 1 - float(patches.mean())


@torch.no_grad()
@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_damage_is_that_of_the_changed_module(name, pictures):
    """The ResNet has batch norms to fold and activations in place."""
    encoder = encoder_of(name)
    ranking = rank_layers(trace(exportable(encoder), size=SIZE), pictures)
    assert {layer.name for layer in ranking} == {f"encoder.{name}" for name in layers_of(encoder)}
    for layer in ranking:
        by_hand = damage_by_hand(encoder, layer.name.removeprefix("encoder."), pictures)
        found = (layer.damage_summary, layer.damage_patches)
        assert found == pytest.approx(by_hand, rel=0.1, abs=1e-8)
    damages = [layer.damage for layer in ranking]
    assert damages == sorted(damages, reverse=True) and 0 < damages[0] < 0.01


def test_the_layer_with_an_outlier_comes_first(pictures):
    """One channel a thousand times as large and its column as much smaller: the same function, a ruined range."""
    encoder = encoder_of("test_vit")
    block = encoder.model.blocks[2]
    with torch.no_grad():
        for tensor in (block.norm2.weight, block.norm2.bias):
            tensor[5] *= 1000
        block.mlp.fc1.weight[:, 5] /= 1000
    ranking = rank_layers(trace(exportable(encoder), size=SIZE), pictures[:1])
    assert ranking[0].name == "encoder.model.blocks.2.mlp.fc1" and ranking[0].damage > 10 * ranking[1].damage


class TwiceEncoder(Encoder):
    """One convolution used twice, a bias-free linear layer without damage, and a matrix that is no layer's weight."""

    name, license = "twice", None
    summary_dim = patch_dim = 3
    stride, default_size = 1, (8, 8)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding="same")
        self.exact = nn.Linear(3, 3, bias=False)
        self.exact.weight.data = torch.eye(3)  # exact in int8, and so is an input of 0 and 1
        self.mixing = nn.Parameter(torch.rand(3, 3))

    def _encode(self, images):
        patches = self.conv(self.conv(images).relu_())
        bits = (images.amax((2, 3)) > 0.99).float()
        return Features(self.exact(bits) @ self.mixing, patches)


def test_a_weight_that_serves_twice_is_one_layer_and_exact_layers_cost_nothing():
    torch.manual_seed(0)
    encoder = TwiceEncoder()
    images = torch.rand(1, 3, 8, 8) * torch.tensor([1.0, 0.5, 1.0]).view(3, 1, 1)
    images[0, [0, 2], 0, 0] = 1
    ranking = {layer.name: layer for layer in rank_layers(trace(exportable(encoder), size=(8, 8)), [images])}
    assert set(ranking) == {"encoder.conv", "encoder.exact"}
    assert ranking["encoder.conv"].damage_summary == 0 < ranking["encoder.conv"].damage_patches
    assert ranking["encoder.exact"].damage < 1e-12


def test_progress_and_no_pictures(pictures):
    graph = trace(exportable(TwiceEncoder()), size=(8, 8))
    calls = []
    rank_layers(graph, [torch.rand(1, 3, 8, 8)] * 2, progress=lambda done, count: calls.append((done, count)))
    assert calls == [(1, 2), (2, 2)]
    with pytest.raises(ValueError, match="no pictures"):
        rank_layers(graph, [])


@pytest.mark.formats
@pytest.mark.parametrize("name", [name for name, kind in FORMATS.items() if kind.int8])
def test_formats_know_the_names(name, pictures, tmp_path):
    """With every ranked layer in float there is nothing left that int8 could hurt."""
    kind = FORMATS[name]
    pytest.importorskip({"onnx": "onnxruntime"}.get(name, name), reason=f"int8 for {name} needs its libraries")
    encoder = encoder_of("test_convnext")
    for tensor in (value for label, value in encoder.named_parameters() if label.endswith("gamma")):
        tensor.data.fill_(1)  # as if trained: at 1e-6, blocks add nothing
    graph = trace(exportable(encoder), size=SIZE)
    names = [layer.name for layer in rank_layers(graph, pictures[:1])]
    errors = []
    for kept in ([], names):
        file = tmp_path / f"{len(kept)}{kind.file}"
        kind.write_int8(graph, file, pictures, keep_float=kept)
        with torch.no_grad():
            found, expected = load_encoder(f"{name}/{file}")(pictures[0]), encoder(pictures[0])
        errors.append(float((found.patches - expected.patches).abs().max() / expected.patches.abs().max()))
    assert errors[0] > 1e-3 and errors[1] < 1e-5


RANKING = [Layer(f"layer{number}", 1.0 / (number + 1), 0.0) for number in range(20)]


class Conversion:
    """Stands for a conversion: what is reached depends on how many of the most hurtful layers are in float."""

    def __init__(self, reached):
        self.reached = reached
        self.calls = []

    def __call__(self, keep_float):
        assert list(keep_float) == [layer.name for layer in RANKING[: len(keep_float)]]
        self.calls.append(len(keep_float))
        return self.reached(len(keep_float))


@pytest.mark.parametrize(
    ("enough", "most", "calls", "kept"),
    [
        (0, 8, [0], 0),
        (1, 8, [0, 1], 1),
        (3, 8, [0, 1, 2, 4], 4),
        (5, 6, [0, 1, 2, 4, 6], 6),
        (19, 100, [0, 1, 2, 4, 8, 16, 20], 20),
    ],
)
def test_fallback_doubles_until_it_is_enough(enough, most, calls, kept):
    conversion = Conversion(lambda count: 0.99 if count >= enough else 0.5)
    assert fallback(conversion, RANKING, 0.9, most) == [layer.name for layer in RANKING[:kept]]
    assert conversion.calls == calls


def test_fallback_that_never_reaches_the_target_ends_with_the_best_and_fewest():
    conversion = Conversion(lambda count: 0.8 if count >= 2 else 0.5)
    assert fallback(conversion, RANKING, 0.9, 8) == ["layer0", "layer1"]
    assert conversion.calls == [0, 1, 2, 4, 8, 2]
    useless = Conversion(lambda count: 0.5)
    assert fallback(useless, RANKING, 0.9, 2) == [] and useless.calls == [0, 1, 2, 0]
    growing = Conversion(float)
    assert len(fallback(growing, RANKING, 100, 4)) == 4 and growing.calls == [0, 1, 2, 4]


def test_no_fallback_is_one_conversion():
    conversion = Conversion(lambda count: 0.0)
    assert fallback(conversion, RANKING, 0.9, 0) == [] and conversion.calls == [0]
    assert fallback(conversion, [], 0.9, 8) == [] and conversion.calls == [0, 0]


def test_the_order_of_the_ranking_does_not_matter():
    conversion = Conversion(lambda count: 1.0 if count else 0.0)
    assert fallback(conversion, RANKING[::-1], 0.9, 8) == ["layer0"]
    by_patches = [Layer("a", 0.1, 0.0), Layer("b", 0.0, 0.2)]
    assert fallback(lambda keep_float: float(bool(keep_float)), by_patches, 0.9, 8) == ["b"]
