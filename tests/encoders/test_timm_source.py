import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from eyespot.encoders import TimmEncoder, load_encoder, save_encoder


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


@torch.no_grad()
@pytest.mark.parametrize("name", ["volo_d1_224", "coat_lite_tiny"])
def test_a_class_token_that_timm_does_not_announce(name):
    encoder = load_encoder(f"timm/{name}", pretrained=False)
    images = torch.rand(1, 3, *encoder.default_size)
    features = encoder(images)
    normalised = (images - encoder.mean) / encoder.std
    maps = encoder.model.forward_intermediates(normalised, indices=1, norm=True, intermediates_only=True)
    torch.testing.assert_close(features.patches, maps[0])
    torch.testing.assert_close(features.summary, encoder.model(normalised))


@torch.no_grad()
def test_pe_lang_and_spatial_give_the_mean_of_their_patches():
    """They have no final norm, and their class token, where there is one, was tuned for nothing."""
    for name in ("lang_large_patch14_448", "lang_gigantic_patch14_448", "spatial_tiny_patch16_512"):
        encoder = load_encoder(f"timm/vit_pe_{name}?depth=1&embed_dim=48&num_heads=3", pretrained=False)
        features = encoder(torch.rand(2, 3, *encoder.fitting_size((64, 96))))
        torch.testing.assert_close(features.summary, features.patches.mean((2, 3)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("crossvit_tiny_240", "several"),
        ("coat_tiny", "several"),
        ("efficientvim_m1", "several"),
        ("pit_ti_224", "1 tokens of a 224x224 picture are not a grid"),
        ("pit_ti_distilled_224", "2 tokens"),
        ("test_vit?global_pool=", r"one vector per picture, got \(1, 101, 64\)"),
        ("test_vit?img_size=4", "cannot take a 4x4 picture"),
    ],
)
def test_a_model_without_one_map_and_one_vector_is_refused_at_once(name, says):
    with torch.device("meta"), pytest.raises(ValueError, match=says):
        load_encoder(f"timm/{name}", pretrained=False)


@pytest.mark.parametrize(
    ("name", "default", "native", "stride"),
    [
        ("test_vit?img_size=128", (128, 128), None, 16),
        ("tf_efficientnet_b4", (384, 384), None, 32),  # timm says 380
        ("vit_so400m_patch14_siglip_384", (378, 378), None, 14),  # timm says 384
        ("qwen3_vit_88m_merge?depth=1", (768, 768), None, 32),  # patches of 16, merged by fours
        ("samvit_base_patch16?depth=1", (1024, 1024), None, 16),
        ("samvit_base_patch16?depth=1&img_size=512", (512, 512), None, 16),
        ("levit_128s", (224, 224), (224, 224), 64),
        ("xcit_nano_12_p16_224?img_size=160", (160, 160), (160, 160), 16),
        ("hiera_tiny_224?img_size=256", (256, 256), (256, 256), 32),
        ("mobilenetv5_300m", (768, 768), (768, 768), 48),  # 16 x 16 patches whatever comes in
        ("mobilevitv2_050", (256, 256), (256, 256), 32),  # odd grids are rounded up
        ("halonet26t", (256, 256), (256, 256), 32),  # needs whole blocks
        ("inception_v3", (299, 299), (299, 299), 38),  # convolutions without padding
    ],
)
def test_sizes_are_measured(name, default, native, stride):
    with torch.device("meta"):
        encoder = load_encoder(f"timm/{name}", pretrained=False)
    assert (encoder.default_size, encoder.native_size, encoder.stride) == (default, native, stride)
    features = encoder(torch.rand(1, 3, *default, device="meta"))
    assert features.grid == tuple(-(-side // stride) for side in default)


@torch.no_grad()
def test_a_size_that_is_no_multiple_of_the_patches():
    """SigLIP at 384 with patches of 14 does not see the last six rows and columns."""
    tiny = "dynamic_img_size=false&depth=1&embed_dim=48&num_heads=3"
    encoder = load_encoder(f"timm/vit_so400m_patch14_siglip_384?{tiny}", pretrained=False)
    assert (encoder.native_size, encoder.stride) == ((384, 384), 14)
    images = torch.rand(1, 3, 384, 384)
    features = encoder(images)
    assert features.grid == (27, 27)
    assert torch.equal(features.tokens, encoder.model.forward_features((images - encoder.mean) / encoder.std))


def test_measuring_leaves_the_model_as_it_is():
    model = timm.create_model("test_efficientnet_ln", num_classes=0).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    TimmEncoder(model, "test_efficientnet_ln", {}, "timm/test_efficientnet_ln", None)
    assert model.training and all(weight.device.type == "cpu" and weight.requires_grad for weight in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


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
    wanted = r"no route to host.*model\.safetensors of timm/test_resnet\.r160_in1k .*weights=FILE.*pretrained=false"
    with pytest.raises(RuntimeError, match=wanted):
        load_encoder("timm/test_resnet")
    load_encoder("timm/test_resnet?pretrained=false")


def whole_state(name, **options):
    """What the hub holds: with classifier."""
    return timm.create_model(name, **options).state_dict()


def without_head(state):
    return {name: value for name, value in state.items() if not name.startswith("head.")}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_downloaded_weights_are_matched_strictly(monkeypatch):
    state = whole_state("test_vit")
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: dict(state))
    encoder = load_encoder("timm/test_vit")
    assert same(encoder.model.state_dict(), without_head(state))
    assert encoder.license == "apache-2.0"
    with pytest.raises(RuntimeError, match=r"Missing key.*blocks\.6\."):
        load_encoder("timm/test_vit?depth=7")  # timm by itself leaves the seventh block random
    del state["norm.weight"]
    with pytest.raises(RuntimeError, match=r"Missing key.*norm\.weight"):
        load_encoder("timm/test_vit")


def test_the_file_that_timm_would_have_fetched(tmp_path):
    state = whole_state("test_vit")
    save_file(state, tmp_path / "model.safetensors")
    encoder = load_encoder("timm/test_vit", weights=tmp_path / "model.safetensors")
    assert same(encoder.model.state_dict(), without_head(state))
    assert "state_dict" not in encoder.model.pretrained_cfg
    save_file(without_head(state) | {"head.weight": state["head.weight"]}, tmp_path / "spoiled.safetensors")
    with pytest.raises(ValueError, match=r"unexpected head\.weight"):
        load_encoder("timm/test_vit", weights=tmp_path / "spoiled.safetensors")


@pytest.mark.parametrize(
    "name", ["vit_so400m_patch14_siglip_gap_224?depth=1&embed_dim=48&num_heads=3", "convnextv2_atto.fcmae", "dla34"]
)
def test_a_wrong_file_is_refused_also_where_timm_would_take_it(name, tmp_path):
    save_file({"blocks.0.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="does not fit"):
        load_encoder(f"timm/{name}", weights=tmp_path / "other.safetensors")


def test_a_file_in_its_authors_names(tmp_path):
    """DINOv2's: registers and class token under other names, and a mask token that nothing needs."""
    options = {"depth": 1, "embed_dim": 48, "num_heads": 3}
    name = "vit_small_patch14_reg4_dinov2"
    ours = whole_state(name, num_classes=0, **options)
    theirs = {key.replace("reg_token", "register_tokens"): value for key, value in ours.items()}
    theirs |= {"mask_token": torch.zeros(1, 48)}
    theirs["pos_embed"] = torch.cat([torch.zeros(1, 1, 48), ours["pos_embed"]], 1)
    torch.save(theirs, tmp_path / "dinov2.pth")
    encoder = load_encoder(f"timm/{name}", weights=tmp_path / "dinov2.pth", **options)
    assert torch.equal(encoder.model.reg_token, ours["reg_token"])
    assert torch.equal(encoder.model.blocks[0].attn.qkv.weight, ours["blocks.0.attn.qkv.weight"])


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
