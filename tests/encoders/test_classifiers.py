"""Encoders with a class head, from every source that needs no network."""

import json

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.data import ImageNetInfo
from torch import nn

from eyespot.data.sets import open_image_folder
from eyespot.encoders import HeadedEncoder, load_classifier, load_encoder, save_encoder
from eyespot.encoders.sources.timm_heads import released_names, running_statistics_kept
from eyespot.randomness import torch_generator

VIT = "depth=2&embed_dim=48&num_heads=3&"
FAMILIES = {
    "resnet10t": "",
    "mobilenetv2_035": "",
    "mobilenetv3_small_050": "",
    "mobilenetv4_conv_small_035": "",
    "ghostnetv3_050": "",
    "efficientvit_b0": "",
    "convnext_atto": "depths=1,1,1,1&dims=16,24,32,48&",
    "vit_tiny_patch16_224": VIT,
    "deit_tiny_distilled_patch16_224": VIT,
    "vit_base_patch16_siglip_224": VIT,
    "swin_tiny_patch4_window7_224": "depths=1,1,1,1&embed_dim=24&num_heads=1,2,4,8&",
    "mixer_s32_224": "",
    "levit_128s": "",
}
NAMES = ["ant", "bee", "cat", "dog", "elk"]
OWN = """
import torch
from eyespot import Encoder, Features

class Own(Encoder):
    summary_dim, patch_dim, stride, default_size = 4, 4, 8, (32, 32)

    def __init__(self, classes):
        super().__init__((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        self.embed = torch.nn.Conv2d(3, 4, 8, 8)
        if classes:
            self.num_classes, self.class_names = classes, [f"class {number}" for number in range(classes)]
            self.head = torch.nn.Linear(4, classes)

    def _encode(self, images):
        maps = self.embed(images)
        summary = maps.mean((2, 3))
        return Features(summary, maps, self.head(summary) if self.num_classes else None)

def make(classes=0):
    return Own(classes)
"""


@pytest.fixture
def images():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def own(tmp_path):
    (tmp_path / "eyes.py").write_text(OWN)
    return f"python/{tmp_path}/eyes.py:make"


def unsettled(encoder):
    """The same encoder with random weights everywhere, so that nothing left out goes unnoticed."""
    generator = torch_generator("weights", encoder.name)
    with torch.no_grad():
        for weight in encoder.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=generator)
    return encoder


@torch.no_grad()
def equal(one, other, images):
    found, wanted = one(images), other(images)
    assert wanted.logits is not None
    return all(torch.equal(getattr(found, name), getattr(wanted, name)) for name in ("summary", "patches", "logits"))


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_timm_and_all_else_is_as_without_head(family):
    spec = f"timm/{family}?{FAMILIES[family]}pretrained=false"
    encoder = unsettled(load_classifier(spec, 5, NAMES))
    assert (encoder.num_classes, encoder.class_names, encoder.training) == (5, NAMES, False)
    size = encoder.fitting_size(64)
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    features = encoder(images)
    assert features.logits.shape == (2, 5)
    assert torch.equal(features.logits, encoder.model((images - encoder.mean) / encoder.std))
    bare = load_encoder(spec)
    assert bare.num_classes == 0 and not bare.class_names
    weights = encoder.state_dict()
    bare.load_state_dict({name: weights[name] for name in bare.state_dict()})
    seen = bare(images)
    assert seen.logits is None
    assert torch.equal(seen.summary, features.summary) and torch.equal(seen.patches, features.patches)


@torch.no_grad()
@pytest.mark.parametrize("family", ["resnet10t", "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_a_saved_classifier_comes_back_and_is_a_model_of_timm(tmp_path, family):
    encoder = unsettled(load_classifier(f"timm/{family}?{FAMILIES[family]}pretrained=false", 5, NAMES))
    images = torch.rand(2, 3, *encoder.fitting_size(64))
    folder = save_encoder(encoder, tmp_path / "saved", license="mit")
    for loaded in (
        load_encoder(f"run/{folder}"),
        load_classifier(f"run/{folder}"),
        load_classifier(f"run/{folder}", 5),
    ):
        assert (loaded.num_classes, loaded.class_names, loaded.license) == (5, NAMES, "mit")
        assert equal(loaded, encoder, images)
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert model.num_classes == 5 and list(model.pretrained_cfg["label_names"]) == NAMES
    assert torch.equal(model((images - encoder.mean) / encoder.std), encoder(images).logits)
    again = load_classifier(f"timm/local-dir:{folder}")
    assert again.class_names == NAMES and equal(again, encoder, images)
    assert load_encoder(f"timm/local-dir:{folder}").num_classes == 0


def test_a_folder_without_head_gets_a_new_one_and_a_head_of_another_size_is_replaced(tmp_path, images):
    bare = load_encoder("timm/test_vit?pretrained=false")
    folder = save_encoder(bare, tmp_path / "bare")
    assert "label_names" not in json.loads((folder / "config.json").read_text())
    with pytest.raises(ValueError, match=r"brings no class head; .* num_classes=N"):
        load_classifier(f"run/{folder}")
    headed = load_classifier(f"run/{folder}", 3)
    assert headed(images).logits.shape == (2, 3)
    assert torch.equal(headed(images).summary, bare(images).summary)
    other = load_classifier(f"run/{save_encoder(headed, tmp_path / 'headed')}", 4)
    assert other(images).logits.shape == (2, 4) and other.class_names is None


def test_without_a_number_it_is_the_head_that_timm_lists_and_the_name_says_so():
    encoder = load_classifier("timm/resnet10t?pretrained=false")
    assert encoder.num_classes == 1000 and encoder.name == "timm/resnet10t?pretrained=false&num_classes=1000"
    assert load_encoder(encoder.name).num_classes == 1000
    assert encoder.class_names is None  # random weights know no classes
    assert released_names(encoder.model, is_timms=True) == ImageNetInfo("imagenet-1k").label_names()
    with pytest.raises(ValueError, match="brings no class head"):
        load_classifier("timm/vit_tiny_patch16_dinov3_qkvb?pretrained=false&depth=1")
    assert load_classifier("timm/vit_tiny_patch16_dinov3_qkvb?pretrained=false&depth=1", 7).num_classes == 7
    assert load_classifier("timm/resnet10t?pretrained=false&num_classes=7&drop_path_rate=0.1").num_classes == 7
    with pytest.raises(ValueError, match="5 class names were given"):
        load_classifier("timm/resnet10t?pretrained=false", 7, NAMES)
    with pytest.raises(ValueError, match="HeadedEncoder"):
        load_classifier("timm/qwen3_vit_88m_enc?depth=2&embed_dim=48&num_heads=3&pretrained=false", 5)


def test_a_file_brings_its_classifier_or_gets_a_new_one(tmp_path, images):
    model = timm.create_model("resnet10t", num_classes=6).eval()
    save_file(model.state_dict(), tmp_path / "six.safetensors")
    six = load_classifier("timm/resnet10t", weights=tmp_path / "six.safetensors")
    assert six.num_classes == 6
    with torch.no_grad():
        assert torch.equal(six(images).logits, model((images - six.mean) / six.std))
    four = load_classifier("timm/resnet10t", 4, weights=tmp_path / "six.safetensors")
    assert four.num_classes == 4 and torch.equal(four(images).summary, six(images).summary)
    backbone = {name: value for name, value in model.state_dict().items() if not name.startswith("fc.")}
    save_file(backbone, tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match="brings no class head"):
        load_classifier("timm/resnet10t", weights=tmp_path / "bare.safetensors")
    assert torch.equal(
        load_classifier("timm/resnet10t", 3, weights=tmp_path / "bare.safetensors")(images).summary,
        six(images).summary,
    )


def test_batch_norms_of_a_head_count_a_batch_once():
    encoder = load_classifier("timm/mobilenetv4_conv_small_035?pretrained=false", 5).train()
    model = timm.create_model("mobilenetv4_conv_small_035", num_classes=5).train()
    model.load_state_dict(encoder.model.state_dict())
    images = torch.rand(4, 3, 64, 64)
    encoder(images).logits.sum().backward()
    model((images - encoder.mean) / encoder.std)
    norm, plain = encoder.model.norm_head, model.norm_head
    torch.testing.assert_close(norm.running_mean, plain.running_mean)
    torch.testing.assert_close(norm.running_var, plain.running_var)
    assert norm.momentum == plain.momentum
    with pytest.raises(RuntimeError), running_statistics_kept(encoder.model):
        raise RuntimeError
    assert norm.momentum == plain.momentum


def test_a_linear_head_on_any_encoder(own, tmp_path, images):
    headed = load_classifier(own, 5, NAMES)
    assert isinstance(headed, HeadedEncoder) and not headed.training
    features = headed(images)
    assert torch.equal(features.logits, headed.head(features.summary))
    assert torch.equal(features.summary, headed.encoder(images).summary)
    assert (headed.stride, headed.default_size, headed.summary_dim) == (8, (32, 32), 4)
    with pytest.raises(ValueError, match="needs sides that are multiples of 8"):
        headed(torch.rand(1, 3, 33, 32))
    folder = save_encoder(headed, tmp_path / "saved")
    assert {"head.weight", "head.bias", "encoder.embed.weight"} <= load_file(folder / "model.safetensors").keys()
    loaded = load_encoder(f"run/{folder}")
    assert (loaded.num_classes, loaded.class_names) == (5, NAMES) and equal(loaded, headed, images)
    assert equal(load_encoder(f"run/{save_encoder(loaded, tmp_path / 'again')}"), headed, images)
    assert load_classifier(f"run/{folder}", 2)(images).logits.shape == (2, 2)
    with pytest.raises(ValueError, match="at least one class"):
        HeadedEncoder(headed, 0)


def test_a_head_of_ones_own_factory_is_taken_as_it_is(own, tmp_path, images):
    with pytest.raises(ValueError, match="brings no class head"):
        load_classifier(own)
    encoder = load_classifier(f"{own}?classes=3")
    assert not isinstance(encoder, HeadedEncoder) and encoder.class_names == ["class 0", "class 1", "class 2"]
    assert equal(load_encoder(f"run/{save_encoder(encoder, tmp_path / 'saved')}"), encoder, images)
    with pytest.raises(ValueError, match="tells 3 classes apart, not 4"):
        load_classifier(f"{own}?classes=3", 4)


def export_program(path, names, classes):
    """A .pt2 file in the form of `eyespot export`, with outputs of those names."""

    class Program(nn.Module):
        def forward(self, images):
            summary = images.mean((2, 3))
            outputs = {"summary": summary, "patches": images[:, :, ::8, ::8], "other": summary * 2}
            scores = summary @ torch.arange(3.0 * classes).view(3, classes)
            return tuple(outputs.get(name, scores) for name in names)

    program = torch.export.export(Program(), (torch.rand(1, 3, 32, 32),))
    facts = {"eyespot": json.dumps({"class_names": NAMES})}
    torch.export.save(program, path, extra_files={"outputs": json.dumps(names), "facts": json.dumps(facts)})
    return f"torch/{path}"


def test_a_file_gives_logits_when_it_is_loaded_as_a_classifier_only(tmp_path):
    images = torch.rand(2, 3, 32, 32)
    spec = export_program(tmp_path / "a.pt2", ["summary", "patches", "logits"], 5)
    assert load_encoder(spec).num_classes == 0 and load_encoder(spec)(images).logits is None
    encoder = load_classifier(spec)
    torch.testing.assert_close(encoder(images).logits, images.mean((2, 3)) @ torch.arange(15.0).view(3, 5))
    assert (encoder.num_classes, encoder.class_names, encoder.name) == (5, NAMES, f"{spec}?logits=true")
    assert load_classifier(spec, 5, ["1", "2", "3", "4", "5"]).class_names == ["1", "2", "3", "4", "5"]
    with pytest.raises(ValueError, match="tells 5 classes apart, not 6"):
        load_classifier(spec, 6)
    log_probs = load_classifier(export_program(tmp_path / "b.pt2", ["summary", "patches", "log_probs"], 4))
    assert log_probs.num_classes == 4 and log_probs.class_names is None


def test_a_file_without_class_outputs_says_which_it_has(tmp_path):
    spec = export_program(tmp_path / "a.pt2", ["summary", "patches", "other"], 5)
    with pytest.raises(ValueError, match=r"it has summary, patches, other\. .*\?logits=NAME"):
        load_classifier(spec)
    assert load_classifier(f"{spec}?logits=other").num_classes == 3


def test_the_semantic_expert_names_what_is_in_photographs(shared):
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is missing: pip install 'eyespot[onnx]'")
    file = shared / "teachers" / "semantic_mobilenetv2_in1k.onnx"
    if not file.is_file():
        pytest.skip(f"no semantic expert at {file}")
    names = file.with_suffix(".labels.txt").read_text().splitlines()
    encoder = load_classifier(f"onnx/{file}", class_names=names)
    assert encoder.num_classes == 1001 and load_encoder(f"onnx/{file}").num_classes == 0
    data = open_image_folder(shared / "data" / "caltech101")
    words = {
        "accordion": ("accordion",),
        "airplanes": ("airliner", "warplane", "wing"),
        "Leopards": ("leopard", "jaguar", "cheetah"),
    }
    for name, right in words.items():
        place = data.classes.index(name)
        chosen = (data.val.labels == place).nonzero()[:5, 0].tolist()
        pictures = torch.cat([data.val.pictures.read(index, index + 1, (224, 224)) for index in chosen])
        logits = encoder(pictures).logits
        torch.testing.assert_close(logits.softmax(1).sum(1), torch.ones(len(chosen)))
        torch.testing.assert_close(logits.logsumexp(1), torch.zeros(len(chosen)), atol=1e-4, rtol=0)
        found = [names[best] for best in logits.argmax(1).tolist()]
        assert sum(any(word in label for word in right) for label in found) >= len(found) / 2, found
