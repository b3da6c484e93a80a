"""One shared test case for every model that a student or teacher may come from: the zoo of all sources."""

import re

import pytest
import timm
import torch
from zoo import ENTRIES
from zoo_timm import ENTRIES as TIMM

from eyespot.encoders import Encoder, load_encoder, save_encoder
from eyespot.features import Features
from eyespot.randomness import torch_generator

WANTED_SIZES = ((64, 64), (64, 96), (128, 64))

# what timm's families do after the last stage that `forward_intermediates` shows
NORM_AFTER_POOLING = {
    **dict.fromkeys(("beit_base_patch16_224", "beit3_base_patch16_224", "eva02_tiny_patch14_224"), "fc_norm"),
    **dict.fromkeys(("naflexvit_base_patch16_gap", "vit_relpos_small_patch16_224"), "fc_norm"),
    **dict.fromkeys(("convnext_tiny", "convnext_zepto_rms", "convnextv2_atto", "mambaout_femto"), "head.norm"),
    **dict.fromkeys(("csatv2", "davit_tiny", "edgenext_xx_small", "maxvit_tiny_tf_224"), "head.norm"),
    **dict.fromkeys(("hiera_tiny_224", "sam2_hiera_tiny", "tiny_vit_5m_224"), "head.norm"),
    **dict.fromkeys(("qwen3_vit_88m", "qwen3_vit_88m_merge", "gemma4_vit_167m", "deepseek_vit_412m"), "norm"),
}
# a convolution, a merger of patches or class attention; with the stride of the map
MORE_AFTER_THE_LAST_STAGE = {
    **dict.fromkeys(("efficientnet_b0", "ghostnet_050", "ghostnetv3_050", "fastvit_t8", "qwen3_vit_88m_merge"), 32),
    "xcit_nano_12_p16_224": 16,
}
WITHOUT_HEAD = ("qwen3_vit_88m_enc",)

PLACELESS = ("levit_128s",)
SHOW_NO_INNER_LAYERS = ("onnx/", "torchhub/")

ONE_OF_EACH_KIND = (
    *("vit_tiny_patch16_224", "onnx, a map", "python, a file", "run, a student"),
    *("dinov2", "open_clip vit", "torchhub dino", "eupe vitt16"),
)
# one of each way through the code: positions, attention, windows, pools, stages, branches, sources
ONE_OF_EACH_PATH = (
    # tokens: learned positions, two class tokens, attention pool, biases, class attention, packed, rotary, mixed
    *("vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "vit_base_patch16_siglip_224"),
    *("beit_base_patch16_224", "cait_xxs24_224", "naflexvit_base_patch16_gap", "vit_tiny_patch16_dinov3_qkvb"),
    *("vit_base_patch16_rope_mixed_224", "qwen3_vit_88m_merge", "gemma4_vit_167m"),
    # windows, masks and shifts; covariances; strides inside attention
    *("samvit_base_patch16", "hiera_tiny_224", "swin_tiny_patch4_window7_224", "maxvit_tiny_tf_224"),
    *("xcit_nano_12_p16_224", "levit_128s"),
    # convolutions: norm after pooling, plain, gates and branches, branches with attention
    *("convnext_tiny", "mobilenetv4_conv_small", "ghostnetv3_050", "fastvit_t8"),
    # the other sources' own ways
    *("dinov2", "clip", "siglip2 (naflex)", "sam 2", "swin", "convnext", "beit"),
    *("open_clip vit", "open_clip coca", "open_clip resnet"),
    *("torchhub dino", "torchhub radio", "eupe vitt16", "python, a file", "run, a student"),
    *("onnx, a map", "onnx, tokens of one size"),
)


def marked(labels):
    """One of each path always, the others when encoders changed; see tests/suites.py."""
    return [label if label in ONE_OF_EACH_PATH else pytest.param(label, marks=pytest.mark.zoo) for label in labels]


of_timm = pytest.mark.parametrize("encoder", marked(TIMM), indirect=True)
of_each_kind = pytest.mark.parametrize("encoder", ONE_OF_EACH_KIND, indirect=True)


@pytest.fixture(scope="module", params=marked(ENTRIES))
def encoder(request, tmp_path_factory):
    """Random weights everywhere, norms and layer scales included, so that nothing left out goes unnoticed."""
    try:
        encoder = load_encoder(ENTRIES[request.param](tmp_path_factory.mktemp("model")))
    except ImportError as error:
        if not isinstance(error, ModuleNotFoundError) and "pip install" not in str(error):
            raise
        pytest.skip(f"an optional library is missing: {error}")
    generator = torch_generator("weights", request.param)
    with torch.no_grad():
        for weight in encoder.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=generator)
    return encoder


def label_of(request):
    return request.node.callspec.params["encoder"]


def sizes(encoder):
    return [encoder.native_size] if encoder.native_size else [encoder.fitting_size(size) for size in WANTED_SIZES]


def pictures(size, count=2):
    return torch.rand(count, 3, *size, generator=torch_generator("pictures", count))


def equal(one: Features, other: Features):
    return torch.equal(one.summary, other.summary) and torch.equal(one.patches, other.patches)


def test_the_zoo_is_broad():
    assert len(TIMM) >= 40
    assert len(ENTRIES) > len(TIMM) + 10
    assert {*ONE_OF_EACH_KIND, *ONE_OF_EACH_PATH} <= ENTRIES.keys()


@torch.no_grad()
def test_widths_and_grid_are_as_announced(encoder):
    for size in sizes(encoder):
        features = encoder(pictures(size))
        assert features.summary.shape == (2, encoder.summary_dim)
        assert features.patches.shape[:2] == (2, encoder.patch_dim)
        assert features.grid == tuple(-(-side // encoder.stride) for side in size)
        assert features.summary.isfinite().all() and features.patches.isfinite().all()
        assert features.patches.std() > 1e-3 and features.summary.std() > 1e-3
    assert encoder.size_error(*encoder.default_size) is None


@torch.no_grad()
def test_a_wrong_size_is_refused_with_one_that_would_do(encoder):
    wrong = (2 * encoder.stride + 1, 2 * encoder.stride)
    with pytest.raises(ValueError, match=r"\d+x\d+") as refusal:
        encoder(pictures(wrong))
    if encoder.native_size is not None:
        assert f"{encoder.native_size[0]}x{encoder.native_size[1]}" in str(refusal.value)
    else:
        height, width = map(int, re.findall(r"(\d+)x(\d+)", str(refusal.value))[-1])
        assert encoder.size_error(height, width) is None
        encoder(pictures((height, width)))


def test_pictures_reach_every_model_through_the_same_door(encoder):
    """What it refuses is asked of one model of each kind, below."""
    assert type(encoder).forward is Encoder.forward and type(encoder).check is Encoder.check
    with pytest.raises(ValueError, match="divide by 255"):
        encoder(255 * pictures(sizes(encoder)[0]))


@of_each_kind
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
def test_mean_and_std_are_applied_once(encoder):
    """What they must be is asked of each source in its own tests; that `_encode` adds nothing, below and there."""
    images = pictures(sizes(encoder)[0])
    features = encoder(images)
    assert equal(features, encoder._encode((images - encoder.mean) / encoder.std))
    if encoder.mean.any():
        assert not equal(features, encoder._encode(images))


@torch.no_grad()
def test_a_patch_answers_to_its_own_pixels(encoder, request):
    """In a map that is transposed, or whose tokens are in another order, the wrong corner would move most."""
    if label_of(request) in PLACELESS:
        pytest.skip("no residual path from a place to its patch: untrained, all patches look alike")
    images = pictures(encoder.native_size or encoder.fitting_size((256, 192)), 1)
    before = encoder(images).patches
    height, width = (side // cells for side, cells in zip(images.shape[2:], before.shape[2:], strict=True))
    for corner, opposite in (((-1, 0), (0, -1)), ((0, -1), (-1, 0))):
        changed = images.clone()
        rows = slice(-height, None) if corner[0] else slice(height)
        columns = slice(-width, None) if corner[1] else slice(width)
        changed[..., rows, columns].round_()
        moved = (encoder(changed).patches - before).norm(dim=1)[0]
        assert moved[corner] > moved[opposite]


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
    assert not encoder.training
    assert equal(encoder(images), encoder(images))


@torch.no_grad()
def test_bfloat16_autocast_stays_close(encoder):
    images = pictures(sizes(encoder)[0])
    exact = encoder(images)
    with torch.autocast("cpu", torch.bfloat16):
        rough = encoder(images).float()
    for one, other in ((exact.summary, rough.summary), (exact.tokens, rough.tokens)):
        assert torch.cosine_similarity(one, other, dim=-1).min() > 0.98


@torch.no_grad()
def test_saved_and_loaded_bit_for_bit(encoder, tmp_path):
    if not encoder.state_dict():
        with pytest.raises(ValueError, match="no weights"):
            save_encoder(encoder, tmp_path / "model")
        return
    folder = save_encoder(encoder, tmp_path / "model", license="apache-2.0")
    loaded = load_encoder(f"run/{folder}")
    images = pictures(sizes(encoder)[-1])
    assert equal(loaded(images), encoder(images))
    for fact in ("summary_dim", "patch_dim", "stride", "native_size", "default_size"):
        assert getattr(loaded, fact) == getattr(encoder, fact), fact
    assert (loaded.name, loaded.license, loaded.training) == (f"run/{folder}", "apache-2.0", False)


@torch.no_grad()
def test_exported_program_gives_the_same_features(encoder):
    """Of all that can be trained; ONNX files are programs already."""
    if not encoder.state_dict():
        assert encoder.name.startswith("onnx/")
        return
    images = pictures(sizes(encoder)[-1])
    program = torch.export.export(encoder, (images,), strict=False).module()
    exported, eager = program(images), encoder(images)
    torch.testing.assert_close(exported.summary, eager.summary, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(exported.patches, eager.patches, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_intermediates_are_maps_of_the_same_pictures(encoder):
    size = sizes(encoder)[-1]
    try:
        maps = encoder.intermediates(pictures(size), [0, 1])
    except NotImplementedError:
        assert encoder.name.startswith(SHOW_NO_INNER_LAYERS)
        return
    assert len(maps) == 2
    for inner in maps:
        assert inner.ndim == 4 and len(inner) == 2 and inner.isfinite().all()
        assert inner.shape[2] * size[1] == inner.shape[3] * size[0]
    with pytest.raises(ValueError, match="divide by 255"):
        encoder.intermediates(pictures(size) * 255, [0])


@of_timm
@torch.no_grad()
def test_equal_to_timm(encoder, request):
    """The summary is what timm's model gives without classifier, the patches its last map under its last norm."""
    label = label_of(request)
    model = encoder.model
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    for size in sizes(encoder):
        images = pictures(size)
        normalised = (images - mean) / std
        features = encoder(images)
        expected = features.patches.mean((2, 3)) if label in WITHOUT_HEAD else model(normalised)
        assert torch.equal(features.summary, expected)
        expected = normed(last_map(model, normalised, label), model, NORM_AFTER_POOLING.get(label))
        torch.testing.assert_close(features.patches, expected, rtol=1e-5, atol=1e-5)


def last_map(model, images, label):
    """[B, D, h, w], by another way than the encoder's: as the last of timm's intermediate maps."""
    if label in MORE_AFTER_THE_LAST_STAGE:
        maps = model.forward_features(images)
        side = tuple(size // MORE_AFTER_THE_LAST_STAGE[label] for size in images.shape[2:])
        return maps if maps.ndim == 4 else maps[:, -side[0] * side[1] :].unflatten(1, side).permute(0, 3, 1, 2)
    with_norm = not hasattr(model, "_pos_embed") or label not in NORM_AFTER_POOLING
    return model.forward_intermediates(images, indices=1, norm=with_norm, output_fmt="NCHW", intermediates_only=True)[0]


def normed(maps, model, name):
    if name is None:
        return maps
    norm = model.get_submodule(name)
    return norm(maps) if type(norm).__name__.endswith("2d") else norm(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@of_timm
@torch.no_grad()
def test_saved_folder_is_one_of_timm_too(encoder, tmp_path, request):
    folder = save_encoder(encoder, tmp_path / "model")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = pictures(sizes(encoder)[-1])
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    if label_of(request) not in WITHOUT_HEAD:
        assert torch.equal(model((images - mean) / std), encoder(images).summary)


@of_timm
@torch.no_grad()
def test_intermediates_are_those_of_timm(encoder):
    images = pictures(sizes(encoder)[0])
    normalised = (images - encoder.mean) / encoder.std
    wanted = encoder.model.forward_intermediates(normalised, indices=[0, 1], output_fmt="NCHW", intermediates_only=True)
    given = encoder.intermediates(images, [0, 1])
    assert len(given) == 2 and all(torch.equal(one, other) for one, other in zip(given, wanted, strict=True))
    with pytest.raises(ValueError, match="ascend"):
        encoder.intermediates(images, [1, 0])
