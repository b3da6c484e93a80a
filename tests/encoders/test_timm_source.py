import pytest
import timm
import torch
from torch import nn

from eyespot.encoders import load_encoder, save_encoder


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # EUPE D.1 less what timm's twins lack: the mask token (width) and the masked key bias (12 x width)
        ("vit_tiny_patch16_dinov3_qkvb", 5_492_160 - 13 * 192),
        ("vit_small_patch16_dinov3_qkvb", 21_601_152 - 13 * 384),
        ("vit_base_patch16_dinov3_qkvb", 85_669_632 - 13 * 768),
        # EUPE D.2
        ("convnext_tiny", 27_820_128),
        ("convnext_small", 49_454_688),
        ("convnext_base", 87_566_464),
    ],
)
def test_parameter_counts_of_the_eupe_backbones(name, parameters):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0)
    assert sum(weight.numel() for weight in model.parameters()) == parameters


def test_the_eupe_vit_is_the_published_one():
    encoder = load_encoder("timm/vit_tiny_patch16_dinov3_qkvb?pretrained=false")
    assert sum(weight.numel() for weight in encoder.parameters()) == 5_489_664
    assert (encoder.summary_dim, encoder.patch_dim, encoder.stride) == (192, 192, 16)
    assert (encoder.default_size, encoder.native_size) == ((256, 256), None)
    assert encoder.model.num_prefix_tokens == 5  # class token and four registers
    assert {norm.eps for norm in encoder.modules() if isinstance(norm, nn.LayerNorm)} == {1e-5}


@torch.no_grad()
def test_a_class_token_that_was_trained_is_the_summary():
    """Timm lists DINOv3 and EUPE with average pooling; the papers use the class token."""
    encoder = load_encoder("timm/vit_tiny_patch16_dinov3_qkvb?depth=1", pretrained=False)
    images = torch.rand(2, 3, 64, 64)
    tokens = encoder.model.forward_features((images - encoder.mean) / encoder.std)
    features = encoder(images)
    assert torch.equal(features.summary, tokens[:, 0])
    assert torch.equal(features.tokens, tokens[:, 5:])
    averaged = load_encoder("timm/vit_tiny_patch16_dinov3_qkvb?depth=1&global_pool=avg", pretrained=False)
    averaged.load_state_dict(encoder.state_dict(), strict=False)
    assert not torch.equal(averaged(images).summary, features.summary)


@torch.no_grad()
def test_convnext_norms_patches_and_summary_alike():
    """EUPE D.2: the final norm on every patch, and on the mean of the map before the norm."""
    encoder = load_encoder("timm/convnext_atto", pretrained=False)
    norm = encoder.model.head.norm
    nn.init.normal_(norm.weight, 1.0)
    nn.init.normal_(norm.bias)
    images = torch.rand(2, 3, 64, 96)
    raw = encoder.model.forward_features((images - encoder.mean) / encoder.std)

    def normed(rows):
        mean, variance = rows.mean(-1, keepdim=True), rows.var(-1, unbiased=False, keepdim=True)
        return (rows - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias

    features = encoder(images)
    torch.testing.assert_close(features.tokens, normed(raw.flatten(2).transpose(1, 2)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features.summary, normed(raw.mean((2, 3))), rtol=1e-4, atol=1e-5)


def test_a_model_with_several_maps_is_refused():
    encoder = load_encoder("timm/crossvit_tiny_240", pretrained=False)
    with pytest.raises(ValueError, match="several"):
        encoder(torch.rand(1, 3, *encoder.default_size))


def test_the_size_an_option_asks_for():
    free = load_encoder("timm/test_vit?img_size=128", pretrained=False)
    assert (free.default_size, free.native_size) == ((128, 128), None)
    fixed = load_encoder("timm/levit_128s", pretrained=False)
    assert fixed.default_size == fixed.native_size == (224, 224)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("resnet81", "resnet18"),
        ("vit_tiny_patch16_dinov3_qkbv", "vit_tiny_patch16_dinov3_qkvb"),
        ("test_vit.no_such_tag", "test_vit.r160_in1k"),
        ("zzzzzzzz", "list_models"),
    ],
)
def test_a_near_miss_shows_what_there_is(name, says):
    with pytest.raises(ValueError, match=says):
        load_encoder(f"timm/{name}", pretrained=False)


@pytest.mark.parametrize("pretrained", [True, False])
def test_an_unknown_option_is_named(pretrained):
    with pytest.raises(ValueError, match="frobnicate"):
        load_encoder("timm/test_vit?frobnicate=3", pretrained=pretrained)


def test_without_network_the_error_names_the_file_to_bring(monkeypatch):
    create = timm.create_model

    def offline(name, pretrained=False, **options):
        if pretrained:
            raise OSError("no route to host")
        return create(name, pretrained=pretrained, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(RuntimeError, match=r"no route to host.*weights=FILE.*pretrained=false"):
        load_encoder("timm/test_resnet")
    load_encoder("timm/test_resnet?pretrained=false")


def test_random_weights_carry_no_licence():
    assert load_encoder("timm/test_vit?pretrained=false").license is None
    assert load_encoder("timm/test_vit?pretrained=false&license=mit").license == "mit"


@torch.no_grad()
def test_a_folder_in_timm_layout(tmp_path):
    encoder = load_encoder("timm/test_vit", pretrained=False)
    folder = save_encoder(encoder, tmp_path / "a.b")
    loaded = load_encoder(f"timm/local-dir:{folder}")
    images = torch.rand(1, 3, 64, 96)
    assert torch.equal(loaded(images).summary, encoder(images).summary)
    assert torch.equal(loaded(images).patches, encoder(images).patches)
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load_encoder(f"timm/local-dir:{tmp_path}")


def test_what_the_authors_keep_out_of_weight_decay():
    encoder = load_encoder("timm/vit_tiny_patch16_224?depth=1", pretrained=False)
    assert {"model.cls_token", "model.pos_embed"} <= encoder.no_weight_decay()
    assert load_encoder("timm/test_resnet", pretrained=False).no_weight_decay() == set()


@torch.no_grad()
def test_channels_last_is_a_matter_of_speed(tmp_path):
    plain = load_encoder("timm/test_convnext", pretrained=False)
    fast = load_encoder("timm/test_convnext?channels_last=true", pretrained=False)
    fast.load_state_dict(plain.state_dict())
    images = torch.rand(2, 3, 64, 96)
    torch.testing.assert_close(fast(images).patches, plain(images).patches, rtol=1e-4, atol=1e-5)
    loaded = load_encoder(f"run/{save_encoder(fast, tmp_path / 'model')}")
    assert loaded.channels_last and torch.equal(loaded(images).patches, fast(images).patches)
