"""Fused networks compute the same as the unfused, to the last digits of float64, and hold no batch norms."""

import pytest
import timm
import torch
import torchvision
from ghosts import WIDTHS, counts, ghostnet, randomised
from torch import nn

from eyespot.encoders import load_encoder, save_encoder
from eyespot.encoders.classifiers import load_classifier
from eyespot.encoders.forms.branches import MultiBranchConv, add_branches
from eyespot.encoders.forms.fusing import fold_norms, fuse, merge_branches
from eyespot.encoders.forms.pairs import conv_norm_pairs
from eyespot.randomness import torch_generator

NETWORKS = {
    "ghostnetv3_050": lambda: timm.create_model("ghostnetv3_050", num_classes=10),
    "ghostnetv3_130": lambda: timm.create_model("ghostnetv3_130", num_classes=10),
    "ghostnetv2_100": lambda: timm.create_model("ghostnetv2_100", num_classes=10),
    "mobilenetv2_050": lambda: timm.create_model("mobilenetv2_050", num_classes=10),
    "shufflenet_v2": lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=10),
    "resnet": lambda: timm.create_model("resnet26t", num_classes=10),
    "ghostnetv2 + branches": lambda: add_branches(timm.create_model("ghostnet_050", version="v2", num_classes=10)),
    "mobilenetv2 + branches": lambda: add_branches(timm.create_model("mobilenetv2_035", num_classes=10)),
    "shufflenet_v2 + branches": lambda: add_branches(torchvision.models.shufflenet_v2_x0_5(num_classes=10), 2),
    "efficientnet, padded as in TensorFlow": lambda: timm.create_model("tf_mobilenetv3_small_075", num_classes=10),
}


def norms(model):
    return [name for name, part in model.named_modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize("label", NETWORKS)
def test_fused_is_unfused(label):
    torch.manual_seed(0)
    model = randomised(NETWORKS[label](), label).double().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quick = fuse(model, (64, 64))
    assert not norms(quick)
    assert not [part for part in quick.modules() if isinstance(part, MultiBranchConv)]
    assert not quick.training and not any(weight.requires_grad for weight in quick.parameters())
    for size in ((64, 96), (96, 64)):
        images = torch.rand(2, 3, *size, dtype=torch.float64, generator=torch_generator(*size))
        with torch.no_grad():
            there, here = model(images), quick(images)
        assert 1e-3 < there.abs().max() < 1e6  # neither dead nor exploded
        # random norms magnify rounding from layer to layer
        assert (there - here).abs().max() < 1e-11 * max(1.0, float(there.abs().max()))
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(after[name], before[name]) for name in before)


# GhostNetV3 notes, section (h): V3 as deployed officially, and V2 minus that
DEPLOYED = {0.5: 2_853_176, 1.0: 6_147_588, 1.3: 8_948_296, 1.6: 12_377_778}
FUSED_CHANNELS = {0.5: 4_660, 1.0: 9_320, 1.3: 12_108, 1.6: 14_920}


@pytest.mark.parametrize("width", WIDTHS)
def test_v3_merged_has_the_published_counts(width):
    v2 = ghostnet("v2", width)
    parameters, macs = counts(v2)
    merged = merge_branches(ghostnet("v3", width))
    assert counts(merged) == (DEPLOYED[width], macs)
    assert parameters - DEPLOYED[width] == FUSED_CHANNELS[width]
    assert len(norms(merged)) == 54


def test_nothing_is_left_to_norm_after_folding():
    merged = merge_branches(ghostnet("v3", 1.0))
    channels = sum(part.num_features for part in merged.modules() if isinstance(part, nn.BatchNorm2d))
    _, macs = counts(merged)
    fold_norms(merged, (64, 64))
    assert not norms(merged)
    assert counts(merged) == (DEPLOYED[1.0] - channels, macs)
    assert channels == 21_872
    assert counts(merge_branches(add_branches(ghostnet("v2", 1.0)))) == (DEPLOYED[1.0], macs)


class Tricky(nn.Module):
    """Pairs that look foldable and are not, beside one that is."""

    def __init__(self):
        super().__init__()
        self.first, self.plain = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.raw, self.raw_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)  # its output is used unnormed as well
        self.twice, self.one_norm, self.other_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.conv_a, self.conv_b, self.shared = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.before_relu, self.after_relu = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.changed, self.changed_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.no_statistics, self.batch_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)
        self.returned, self.returned_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, images):
        x = self.plain(self.first(images))
        raw = self.raw(x)
        x = self.raw_norm(raw) + raw
        x = self.one_norm(self.twice(x)) + self.other_norm(self.twice(x + 1))
        x = self.shared(self.conv_a(x)) + self.shared(self.conv_b(x))
        x = self.after_relu(self.before_relu(x).relu())
        changed = self.changed(x)
        changed.add_(x)
        x = self.changed_norm(changed)
        x = self.batch_norm(self.no_statistics(x))
        returned = self.returned(x)
        return self.returned_norm(returned), returned


def test_norms_that_must_stay():
    model = randomised(Tricky()).double().eval()
    found = [(pair.conv_name, pair.norm_name) for pair in conv_norm_pairs(model, (9, 9))]
    assert found == [("first", "plain")]
    quick = fuse(model, (9, 9))
    assert set(norms(quick)) == set(norms(model)) - {"plain"}
    images = torch.rand(2, 3, 9, 12, dtype=torch.float64)
    with torch.no_grad():
        for there, here in zip(model(images), quick(images), strict=True):
            torch.testing.assert_close(here, there, rtol=0, atol=1e-12)


def test_a_size_that_the_model_does_not_take():
    with pytest.raises(ValueError, match="64x64"):
        fuse(nn.Sequential(nn.Conv2d(3, 4, 128), nn.BatchNorm2d(4)), (64, 64))


SPECS = (
    pytest.param("timm/ghostnetv3_050?pretrained=false", marks=pytest.mark.slow),
    "timm/mobilenetv2_035?pretrained=false&branches=2&stem_stride=1",
    "python/eyespot.encoders.shufflenet:shufflenet_v2?width=0.5&branches=2&num_classes=5",
)


@pytest.mark.parametrize("spec", SPECS)
def test_a_fused_encoder_is_saved_and_loaded(spec, tmp_path):
    encoder = randomised(load_encoder(spec))
    quick = encoder.run_time_form()
    assert quick.name == f"{encoder.name}&fused=true" and not norms(quick) and norms(encoder)
    loaded = load_encoder(f"run/{save_encoder(quick, tmp_path / 'quick')}")
    assert not norms(loaded)
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        here, again = quick(images), loaded(images)
    assert torch.equal(again.summary, here.summary) and torch.equal(again.patches, here.patches)
    encoder.origin = spec  # as of a loaded run
    assert encoder.run_time_form().origin == f"{spec}&fused=true"
    quick.double()
    assert encoder.mean.dtype == torch.float32  # nothing is shared
    encoder.double()
    with torch.no_grad():
        there, here = encoder(images.double()), encoder.run_time_form()(images.double())
    scale = max(1.0, float(there.patches.abs().max()))  # random norms magnify rounding from layer to layer
    torch.testing.assert_close(here.patches, there.patches, rtol=0, atol=1e-10 * scale)
    torch.testing.assert_close(here.summary, there.summary, rtol=0, atol=1e-10 * scale)


def test_a_fused_encoder_with_a_linear_head(tmp_path):
    spec = "python/eyespot.encoders.shufflenet:shufflenet_v2?width=0.5&branches=2"
    encoder = randomised(load_classifier(spec, 4))
    quick = encoder.run_time_form()
    loaded = load_encoder(f"run/{save_encoder(quick, tmp_path / 'quick')}")
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert not norms(loaded) and torch.equal(loaded(images).logits, quick(images).logits)
        scale = float(encoder(images).logits.abs().max())
        torch.testing.assert_close(quick(images).logits, encoder(images).logits, rtol=0, atol=1e-3 * scale)


def test_a_form_that_no_spec_describes(tmp_path):
    (tmp_path / "own.py").write_text(
        "import torch\n"
        "from eyespot import Encoder, Features\n"
        "class Own(Encoder):\n"
        "    summary_dim = patch_dim = 4\n"
        "    stride, default_size = 8, (32, 32)\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 8, 8), torch.nn.BatchNorm2d(4))\n"
        "    def _encode(self, images):\n"
        "        patches = self.net(images)\n"
        "        return Features(patches.mean((2, 3)), patches)\n"
    )
    encoder = randomised(load_encoder(f"python/{tmp_path}/own.py:Own"))
    with pytest.raises(ValueError, match=r"fuse\(encoder\)"):
        encoder.run_time_form()
    quick = fuse(encoder, encoder.default_size)
    images = torch.rand(2, 3, 32, 48)
    assert not norms(quick)
    torch.testing.assert_close(quick(images).patches, encoder(images).patches)
