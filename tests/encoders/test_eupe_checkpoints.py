"""Official EUPE files: read strictly, computed as the authors' code computes, written back to the bit."""

import shutil

import pytest
import timm
import torch
from eupe_by_hand import by_hand
from timm.models import convnext, eva
from zoo_eupe import CONVNEXTS, VITS, official_state, projector_state

from eyespot.distill.features.heads import AdapterHead
from eyespot.encoders import load_encoder, save_encoder
from eyespot.encoders.licenses import Terms
from eyespot.encoders.sources.eupe import CHECKPOINTS, LICENSE, write_eupe_checkpoint
from eyespot.encoders.sources.timm import create_timm_encoder
from eyespot.randomness import torch_generator

NAMES = [*VITS, *CONVNEXTS]
SMALL = ("vitt16", "convnext_tiny")  # one of each family; the others differ in widths and depths
SIZES = ((224, 224), (256, 192))
# EUPE D.1 and D.2: keys, parameters
COUNTS = {
    "vitt16": (188, 5_492_160),
    "vits16": (188, 21_601_152),
    "vitb16": (188, 85_669_632),
    "convnext_tiny": (182, 27_820_128),
    "convnext_small": (344, 49_454_688),
    "convnext_base": (344, 87_566_464),
}


class Official:
    """One of the six models as a file, and as we load it."""

    def __init__(self, name, folder):
        self.name, self.architecture = name, CHECKPOINTS[name].architecture
        self.state = official_state(name)
        self.file = folder / CHECKPOINTS[name].file
        torch.save(self.state, self.file)
        self.encoder = load_encoder(f"eupe/{name}", weights=self.file)


@pytest.fixture(autouse=True)
def no_large_files_stay(tmp_path):
    yield
    shutil.rmtree(tmp_path)


@pytest.fixture(
    scope="module", params=[name if name in SMALL else pytest.param(name, marks=pytest.mark.zoo) for name in NAMES]
)
def official(request, tmp_path_factory):
    official = Official(request.param, tmp_path_factory.mktemp("official"))
    yield official
    official.file.unlink()  # up to 350 MB


@pytest.fixture(scope="module", params=SMALL)
def small(request, tmp_path_factory):
    small = Official(request.param, tmp_path_factory.mktemp("small"))
    small.file.unlink()
    return small


def pictures(size, count=1):
    return torch.rand(count, 3, *size, generator=torch_generator("eupe pictures", size))


def normalised(images):
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def bits(tensor):
    return tensor.dtype, tensor.shape, tensor.numpy().tobytes()


def assert_same_state(one, other):
    assert list(one) == list(other)
    assert all(bits(one[name]) == bits(other[name]) for name in one)


def assert_same_outputs(one, other, size=(64, 96)):
    with torch.no_grad():
        before, after = one(pictures(size)), other(pictures(size))
    assert torch.equal(before.summary, after.summary) and torch.equal(before.patches, after.patches)


def by_timm(name, state, images):
    """(summary, patches) of timm's twin, loaded by timm's own converter."""
    is_vit = name in VITS
    arguments = {"global_pool": "token", "dynamic_img_size": True} if is_vit else {}
    model = timm.create_model(CHECKPOINTS[name].architecture, num_classes=0, **arguments).eval()
    model.load_state_dict((eva if is_vit else convnext).checkpoint_filter_fn(dict(state), model), strict=True)
    results = []
    for picture in images:
        features = model.forward_features(picture)
        if is_vit:
            patches = features[:, 5:].transpose(1, 2).unflatten(2, [side // 16 for side in picture.shape[2:]])
        else:
            patches = model.head.norm(features)
        results.append((model.forward_head(features, pre_logits=True), patches))
    return results


def test_the_layout_is_the_published_one(official):
    keys, parameters = COUNTS[official.name]
    buffers = ("bias_mask", "periods", "norms.3.weight", "norms.3.bias")  # the last two are `norm` again
    assert len(official.state) == keys
    assert sum(t.numel() for name, t in official.state.items() if not name.endswith(buffers)) == parameters


def test_an_official_file_loads_by_name_and_path(official):
    encoder, width = official.encoder, len(official.state["norm.weight"])
    assert encoder.name == f"eupe/{official.name}?weights={official.file}"
    assert (encoder.summary_dim, encoder.patch_dim) == (width, width)
    assert (encoder.stride, encoder.default_size) == (16 if official.name in VITS else 32, (256, 256))
    assert (encoder.license, encoder.terms) == (LICENSE, Terms.NON_COMMERCIAL)
    assert not encoder.training and encoder.native_size is None


@torch.no_grad()
def test_outputs_are_those_of_the_twin_that_timm_loads(official):
    twin = by_timm(official.name, official.state, [normalised(pictures(size)) for size in SIZES])
    for size, (summary, patches) in zip(SIZES, twin, strict=True):
        features = official.encoder(pictures(size))
        assert torch.equal(features.summary, summary)
        assert torch.equal(features.patches, patches)


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
def test_outputs_are_those_of_the_spec_in_plain_torch(official, size):
    features = official.encoder(pictures(size))
    summary, patches = by_hand(official.name, official.state, normalised(pictures(size)))
    torch.testing.assert_close(features.summary, summary, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(features.patches, patches, rtol=1e-5, atol=2e-5)


def test_back_to_the_official_layout_to_the_bit(official, tmp_path):
    file = write_eupe_checkpoint(official.encoder, tmp_path / "back.pth")
    assert_same_state(torch.load(file, weights_only=True), official.state)


def test_a_model_folder_keeps_everything_on_the_way(small, tmp_path):
    state = small.state | projector_state(small.encoder.patch_dim) | {"projectors.scale": torch.ones(1)}
    torch.save(state, tmp_path / "official.pt")
    encoder = load_encoder(f"eupe/{small.name}", weights=tmp_path / "official.pt")
    loaded = load_encoder(f"run/{save_encoder(encoder, tmp_path / 'model', license=encoder.license)}")
    assert_same_outputs(encoder, loaded)
    assert loaded.license == LICENSE
    assert encoder.adapters.keys() == loaded.adapters.keys()
    assert all(bits(encoder.adapters[name]) == bits(loaded.adapters[name]) for name in loaded.adapters)
    back = torch.load(write_eupe_checkpoint(loaded, tmp_path / "back.pt"), weights_only=True)
    assert back.keys() == state.keys() and all(bits(back[name]) == bits(state[name]) for name in state)
    assert_same_state(torch.load(write_eupe_checkpoint(encoder, tmp_path / "again.pt")), state)


def student(architecture, **options):
    """A student of ours, with everything that ours carry."""
    encoder = load_encoder(f"timm/{architecture}", pretrained=False, **options)
    generator = torch_generator("student", architecture)
    with torch.no_grad():
        for weight in encoder.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    heads = {
        f"heads.{teacher}.{part}.{name}": value
        for teacher in ("proxy", "patchy-global_clip")
        for part in ("summary", "patch")
        for name, value in AdapterHead(encoder.patch_dim, 16, 8).state_dict().items()
    }
    encoder.adapters = {
        **heads,
        "standardizers.proxy.patch.mean": torch.randn(8, generator=generator).double(),
        "through.proxy.heads.clip.summary.3.weight": torch.randn(4, 4, generator=generator),
    }
    return encoder


@pytest.mark.parametrize("name", ["vitt16", pytest.param("convnext_tiny", marks=pytest.mark.slow)])
def test_a_student_of_ours_and_back(name, tmp_path):
    architecture = CHECKPOINTS[name].architecture
    ours = student(architecture, drop_path_rate=0.1)
    file = write_eupe_checkpoint(ours, tmp_path / "student.pth")
    again = load_encoder(f"eupe/{name}", weights=file, license="apache-2.0")
    assert again.license == "apache-2.0"
    assert_same_state(again.model.state_dict(), ours.model.state_dict())
    assert_same_state(again.adapters, ours.adapters)
    assert_same_outputs(again, ours)

    state = torch.load(file, weights_only=True)
    backbone = [key for key in state if not key.startswith("projectors.")]
    assert backbone == list(official_state(name))
    assert f"projectors.{next(iter(ours.adapters))}" in state
    if name in VITS:  # what a fresh official model has
        assert not state["mask_token"].any() and not state["blocks.3.attn.qkv.bias"].chunk(3)[1].any()
        assert torch.equal(state["rope_embed.periods"], ours.model.rope.periods)
    ((summary, patches),) = by_timm(name, state, [normalised(pictures((64, 96)))])  # others read it, too
    with torch.no_grad():
        features = ours(pictures((64, 96)))
    assert torch.equal(features.summary, summary)
    assert torch.equal(features.patches, patches)


def test_a_student_in_bfloat16_is_written_in_float32(tmp_path):
    ours = student("vit_tiny_patch16_dinov3_qkvb").bfloat16()
    state = torch.load(write_eupe_checkpoint(ours, tmp_path / "student.pt"), weights_only=True)
    assert all(value.dtype == torch.float32 for name, value in state.items() if "standardizers" not in name)
    assert torch.equal(state["storage_tokens"], ours.model.reg_token.float())


def changed(state, **changes):
    return {**state, **{name.replace("__", "."): value for name, value in changes.items()}}


REFUSED = {
    "renamed": (
        lambda state: {"norm.scale" if name == "norm.weight" else name: value for name, value in state.items()},
        r"missing norm\.weight; unexpected norm\.scale",
    ),
    "missing": (
        lambda state: {name: value for name, value in state.items() if name != "norm.bias"},
        "missing norm.bias",
    ),
    "extra": (lambda state: changed(state, head__weight=torch.zeros(2)), r"unexpected head\.weight"),
    "misshapen": (lambda state: changed(state, norm__weight=torch.zeros(7)), r"norm\.weight is \(7,\), should be \("),
    "renamed in a block": (
        lambda state: {name.replace("norm1", "ln1").replace("dwconv", "conv"): state[name] for name in state},
        r"missing (blocks|stages)\..*; and \d+ more",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_does_not_fit_is_refused_in_official_names(small, tmp_path, case):
    spoil, says = REFUSED[case]
    file = tmp_path / "spoiled.pt"
    torch.save(spoil(small.state), file)
    with pytest.raises(ValueError, match=says) as refusal:
        load_encoder(f"eupe/{small.name}", weights=file)
    assert str(file) in str(refusal.value) and f"eupe/{small.name}" in str(refusal.value)


MASK = "blocks.5.attn.qkv.bias_mask"
WRONG_VALUES = {
    "unmasked keys": ("vitt16", MASK, lambda mask: torch.ones_like(mask), MASK),
    "a mask never filled": ("vitt16", MASK, lambda mask: mask * torch.nan, MASK),
    "other periods": ("vitt16", "rope_embed.periods", lambda periods: periods * 1.001, r"100\^\(2i/32\)"),
    "two final norms": ("convnext_tiny", "norms.3.weight", lambda norm: norm + 1e-6, r"differs from norm\.weight"),
}


@pytest.mark.parametrize("case", WRONG_VALUES)
def test_values_that_the_twin_cannot_honour_are_refused(tmp_path, case):
    name, key, spoil, says = WRONG_VALUES[case]
    state = official_state(name)
    torch.save({**state, key: spoil(state[key])}, tmp_path / "spoiled.pt")
    with pytest.raises(ValueError, match=says):
        load_encoder(f"eupe/{name}", weights=tmp_path / "spoiled.pt")


@pytest.mark.parametrize("bend", [lambda p: p.bfloat16().float(), lambda p: p.nextafter(p + 1)])
def test_periods_that_were_rounded_differently_are_taken_and_given_back(tmp_path, bend):
    state = official_state("vitt16")
    state["rope_embed.periods"] = bend(state["rope_embed.periods"])
    torch.save(state, tmp_path / "official.pt")
    encoder = load_encoder("eupe/vitt16", weights=tmp_path / "official.pt")
    back = write_eupe_checkpoint(encoder, tmp_path / "back.pt")
    assert_same_state(torch.load(back, weights_only=True), state)


STRANGERS = {
    "another size": (lambda: official_state("vits16"), "vitt16", "a file of eupe/vits16"),
    "the other family": (lambda: official_state("convnext_tiny"), "vitt16", "a file of eupe/convnext_tiny"),
    "the same width": (lambda: official_state("convnext_small"), "convnext_tiny", "a file of eupe/convnext_small"),
    "timm's names": (
        lambda: timm.create_model("convnext_tiny", num_classes=0).state_dict(),
        "convnext_tiny",
        "timm/convnext_tiny with weights=",
    ),
    "another model": (
        lambda: timm.create_model("test_resnet").state_dict(),
        "vitt16",
        r"another model's; it has conv1.* not cls_token, ",
    ),
}


@pytest.mark.parametrize("case", STRANGERS)
def test_another_models_file_gets_a_short_answer(tmp_path, case):
    state, name, says = STRANGERS[case]
    torch.save(state(), tmp_path / "other.pt")
    with pytest.raises(ValueError, match=says) as refusal:
        load_encoder(f"eupe/{name}", weights=tmp_path / "other.pt")
    assert len(str(refusal.value)) < 400


def test_the_prefix_of_a_training_checkpoint_is_taken_off(small, tmp_path):
    torch.save({f"teacher.{name}": value for name, value in small.state.items()}, tmp_path / "wrapped.pt")
    assert_same_outputs(load_encoder(f"eupe/{small.name}", weights=tmp_path / "wrapped.pt"), small.encoder)


@pytest.mark.parametrize("name", NAMES)
def test_without_a_file_the_error_says_which_to_bring(name):
    with pytest.raises(FileNotFoundError, match=rf"Bring {CHECKPOINTS[name].file} .*weights=.*pretrained=false"):
        load_encoder(f"eupe/{name}")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"EUPE-ViT-T\.pt"):
        load_encoder("eupe/vitt16", weights=tmp_path / "EUPE-ViT-T.pt")


@pytest.mark.parametrize(("name", "says"), [("vitt", "mean eupe/vitt16"), ("resnet50", "no eupe/resnet50.*vitb16")])
def test_an_unknown_name_lists_those_there_are(name, says):
    with pytest.raises(ValueError, match=says):
        load_encoder(f"eupe/{name}", pretrained=False)


def test_random_weights_carry_no_licence():
    encoder = load_encoder("eupe/vitt16?pretrained=false")
    assert encoder.license is None and encoder.adapters == {}
    assert encoder.name == "eupe/vitt16?pretrained=false"


UNWRITABLE = {
    "another architecture": (
        lambda: load_encoder("timm/test_vit", pretrained=False),
        "only for timm's .*convnext_base",
    ),
    "the qkv layout without biases": (
        lambda: load_encoder("timm/vit_small_patch16_dinov3?depth=1", pretrained=False),
        "only for timm's vit_tiny_patch16_dinov3_qkvb",
    ),
    "fewer blocks": (
        lambda: load_encoder("timm/vit_tiny_patch16_dinov3_qkvb?depth=2", pretrained=False),
        "differs from eupe/vitt16 in depth",
    ),
    "another summary": (
        lambda: load_encoder("timm/vit_tiny_patch16_dinov3_qkvb?global_pool=avg", pretrained=False),
        "differs from eupe/vitt16 in global_pool",
    ),
    "another order of channels": (
        lambda: load_encoder("timm/vit_tiny_patch16_dinov3_qkvb?channel_order=bgr", pretrained=False),
        "differs from eupe/vitt16 in channel_order",
    ),
    "another normalisation": (
        lambda: create_timm_encoder(
            "convnext_tiny", pretrained=False, pretrained_cfg={"mean": (0.5,) * 3, "std": (0.5,) * 3}
        ),
        "differs from eupe/convnext_tiny in mean, std",
    ),
}


@pytest.mark.parametrize("case", UNWRITABLE)
def test_what_an_official_file_cannot_hold_is_not_written(tmp_path, case):
    make, says = UNWRITABLE[case]
    with pytest.raises(ValueError, match=says):
        write_eupe_checkpoint(make(), tmp_path / "student.pth")
    assert not list(tmp_path.iterdir())


def test_only_torch_files_are_written(small, tmp_path):
    with pytest.raises(ValueError, match=r"\.pth"):
        write_eupe_checkpoint(small.encoder, tmp_path / "student.safetensors")
