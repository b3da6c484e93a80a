"""One shared test case for every family of timm model that a student or teacher may come from."""

import re

import pytest
import timm
import torch

from eyespot.data.randomness import torch_generator
from eyespot.encoders import load_encoder, save_encoder

FAMILIES = {
    "vit": "test_vit",
    "vit, norm after pooling": "vit_tiny_patch16_224?depth=2&global_pool=avg",
    "dinov3 (rope, registers)": "vit_tiny_patch16_dinov3_qkvb?depth=2",
    "pe (attention pool)": "vit_pe_core_tiny_patch16_384?depth=2",
    "siglip (no class token)": "vit_base_patch16_siglip_224?depth=2&embed_dim=64&num_heads=2",
    "swin": "swin_tiny_patch4_window7_224?embed_dim=24&depths=1,2,1,1&num_heads=1,2,4,8",
    "tinyvit": "tiny_vit_5m_224",
    "levit (fixed size)": "levit_128s",
    "xcit (fixed size)": "xcit_nano_12_p16_224?depth=2",
    "convnext": "convnext_atto",
    "mobilenetv4": "mobilenetv4_conv_small",
    "mambaout (channels last)": "test_mambaout",
    "fastvit": "fastvit_t8",
    "efficientvit": "efficientvit_b0",
    "repvit": "repvit_m0_9",
    "edgenext": "edgenext_xx_small",
    "resnet": "test_resnet",
    "ghostnetv3": "ghostnetv3_050",
}
SIZES = ((64, 64), (64, 96))


@pytest.fixture(scope="module", params=FAMILIES)
def encoder(request):
    """Random weights everywhere, norms and layer scales included, so that nothing left out goes unnoticed."""
    encoder = load_encoder(f"timm/{FAMILIES[request.param]}", pretrained=False)
    generator = torch_generator("weights", request.param)
    with torch.no_grad():
        for weight in encoder.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=generator)
    return encoder


def sizes(encoder):
    return SIZES if encoder.native_size is None else (encoder.native_size,)


def pictures(size, count=2):
    return torch.rand(count, 3, *size, generator=torch_generator("pictures", count))


@torch.no_grad()
def test_widths_and_grid_are_as_announced(encoder):
    for size in sizes(encoder):
        features = encoder(pictures(size))
        assert features.summary.shape == (2, encoder.summary_dim)
        assert features.patches.shape[:2] == (2, encoder.patch_dim)
        assert features.grid == tuple(-(-side // encoder.stride) for side in size)
        assert features.summary.isfinite().all() and features.patches.isfinite().all()
        assert features.patches.std() > 1e-3 and features.summary.std() > 1e-3


@torch.no_grad()
def test_a_wrong_size_is_refused_with_one_that_would_do(encoder):
    wrong = (2 * encoder.stride + 1, 2 * encoder.stride)
    with pytest.raises(ValueError, match=r"\d+x\d+") as refusal:
        encoder(pictures(wrong))
    offered = re.findall(r"(\d+)x(\d+)", str(refusal.value).partition(" got ")[2] or str(refusal.value))
    if encoder.native_size is not None:
        assert f"{encoder.native_size[0]}x{encoder.native_size[1]}" in str(refusal.value)
    else:
        height, width = map(int, offered[-1])
        assert encoder.size_error(height, width) is None
        encoder(pictures((height, width)))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda images: images * 255, "divide by 255"),
        (lambda images: (images - 0.45) / 0.225, "drop the Normalize"),
        (lambda images: images * 2 - 1, "drop the Normalize"),
        (lambda images: images.masked_fill(images > 0.9, float("nan")), "NaN"),
        (lambda images: images.masked_fill(images > 0.9, float("inf")), "infinite"),
        (lambda images: (images * 255).byte(), "divide by 255"),
        (lambda images: images[:, :1], "convert"),
        (lambda images: images[0], "expected RGB"),
    ],
    ids=["0-255", "normalised", "-1 to 1", "nan", "infinite", "uint8", "grey", "no batch"],
)
def test_pictures_that_would_be_misread_are_refused(encoder, spoil, says):
    with pytest.raises(ValueError, match=says):
        encoder(spoil(pictures(sizes(encoder)[0])))


@torch.no_grad()
def test_normalised_once_and_equal_to_timm(encoder):
    cfg, model = encoder.model.pretrained_cfg, encoder.model
    for size in sizes(encoder):
        images = pictures(size)
        mean, std = (torch.tensor(cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
        normalised = (images - mean) / std
        features = encoder(images)
        torch.testing.assert_close(features.summary, model(normalised), rtol=0, atol=0)
        torch.testing.assert_close(features.patches, patches_by_hand(model, normalised), rtol=1e-5, atol=1e-5)


def patches_by_hand(model, images):
    """The dense map as timm computes it, under the norm that timm applies after pooling, if there is one."""
    maps = model.forward_features(images)
    if maps.ndim == 3:
        tokens = getattr(model, "fc_norm", torch.nn.Identity())(maps[:, getattr(model, "num_prefix_tokens", 0) :])
        rows = round((tokens.shape[1] * images.shape[2] / images.shape[3]) ** 0.5)
        return tokens.reshape(len(tokens), rows, -1, tokens.shape[2]).permute(0, 3, 1, 2)
    norm = getattr(getattr(model, "head", None), "norm", torch.nn.Identity())  # takes maps in the model's own format
    return norm(maps).permute(0, 3, 1, 2) if getattr(model, "output_fmt", "NCHW") == "NHWC" else norm(maps)


@torch.no_grad()
def test_a_batch_of_one_equals_a_batch_of_many(encoder):
    images = pictures(sizes(encoder)[-1], 3)
    together = encoder(images)
    for number in range(3):
        alone = encoder(images[number : number + 1])
        torch.testing.assert_close(alone.summary[0], together.summary[number], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(alone.patches[0], together.patches[number], rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_deterministic_in_eval_mode(encoder):
    images = pictures(sizes(encoder)[0])
    once, again = encoder(images), encoder(images)
    assert torch.equal(once.summary, again.summary) and torch.equal(once.patches, again.patches)


@torch.no_grad()
def test_bfloat16_autocast_stays_close(encoder):
    images = pictures(sizes(encoder)[0])
    exact = encoder(images)
    with torch.autocast("cpu", torch.bfloat16):
        rough = encoder(images).float()
    for one, other in ((exact.summary, rough.summary), (exact.tokens, rough.tokens)):
        assert torch.cosine_similarity(one, other, dim=-1).min() > 0.98


@torch.no_grad()
def test_saved_and_loaded_bit_for_bit_by_us_and_by_timm(encoder, tmp_path):
    folder = save_encoder(encoder, tmp_path / "model", license="apache-2.0")
    loaded = load_encoder(f"run/{folder}")
    images = pictures(sizes(encoder)[-1])
    before, after = encoder(images), loaded(images)
    assert torch.equal(before.summary, after.summary) and torch.equal(before.patches, after.patches)
    for fact in ("summary_dim", "patch_dim", "stride", "native_size", "default_size"):
        assert getattr(loaded, fact) == getattr(encoder, fact), fact
    assert (loaded.name, loaded.license, loaded.training) == (f"run/{folder}", "apache-2.0", False)

    in_timm = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    cfg = in_timm.pretrained_cfg
    mean, std = (torch.tensor(cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    assert torch.equal(in_timm((images - mean) / std), before.summary)


@torch.no_grad()
def test_intermediates_are_those_of_timm(encoder):
    images = pictures(sizes(encoder)[0])
    normalised = (images - encoder.mean) / encoder.std
    wanted = encoder.model.forward_intermediates(normalised, indices=[0, 1], output_fmt="NCHW", intermediates_only=True)
    given = encoder.intermediates(images, [0, 1])
    assert len(given) == 2 and all(torch.equal(one, other) for one, other in zip(given, wanted, strict=True))
    with pytest.raises(ValueError, match="ascend"):
        encoder.intermediates(images, [1, 0])
    with pytest.raises(ValueError, match="divide by 255"):
        encoder.intermediates(images * 255, [0])
