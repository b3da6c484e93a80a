import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from eyespot.distill.committee import Committee, load_committee
from eyespot.encoders import load_encoder, save_encoder
from eyespot.encoders.naming import has_random_weights, short_names
from eyespot.encoders.permissive import require_permissive
from eyespot.pictures import as_unit_floats, resize_pictures
from toy_encoders import ToyEncoder, make_batch, pictures


def mixed():
    return {
        "fine": ToyEncoder("fine", summary_dim=3, patch_dim=4, stride=4),
        "coarse": ToyEncoder("coarse", summary_dim=7, patch_dim=2, stride=16, native_size=(48, 32)),
        "free": ToyEncoder("free", stride=8, default_size=(40, 40)),
    }


def test_strides_widths_and_native_sizes_may_differ():
    teachers = mixed()
    features = Committee(teachers)(make_batch())
    assert {name: one.grid for name, one in features.items()} == {"fine": (8, 8), "coarse": (3, 2), "free": (5, 5)}
    for name, teacher in teachers.items():
        assert features[name].summary.shape == (4, teacher.summary_dim)
        assert features[name].patches.shape[:2] == (4, teacher.patch_dim)


def test_every_teacher_sees_the_picture_at_its_own_size():
    teachers = mixed()
    images = pictures().float() / 255
    features = Committee(teachers)({"images": images})
    for name, size in (("fine", (32, 32)), ("coarse", (48, 32)), ("free", (40, 40))):
        seen = F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)
        with torch.no_grad():
            alone = teachers[name](seen)
        assert torch.equal(features[name].summary, alone.summary)
        assert torch.equal(features[name].patches, alone.patches)


def test_a_size_is_for_teachers_that_take_any():
    teachers = mixed()
    features = Committee(teachers)(make_batch(), size=64)
    assert {name: one.grid for name, one in features.items()} == {"fine": (16, 16), "coarse": (3, 2), "free": (8, 8)}
    assert teachers["coarse"].fitting_size(64) == (48, 32)
    assert teachers["free"].fitting_size(64) == (64, 64)
    assert teachers["free"].fitting_size(None) == (40, 40)


def test_uint8_and_unit_floats_are_the_same_picture():
    batch = make_batch()
    committee = Committee(mixed())
    floats = {**batch, "images": batch["images"].float() / 255}
    for one, other in zip(committee(batch).values(), committee(floats).values(), strict=True):
        assert torch.equal(one.summary, other.summary) and torch.equal(one.patches, other.patches)


def test_resized_pictures_stay_pictures():
    images = as_unit_floats(pictures(2, 48).where(torch.rand(2, 3, 48, 48) > 0.5, torch.tensor(255, dtype=torch.uint8)))
    for size in ((16, 16), (96, 80), (31, 50)):
        resized = resize_pictures(images, size)
        assert resized.shape == (2, 3, *size) and resized.min() >= -1e-6 and resized.max() <= 1 + 1e-6
    assert resize_pictures(images, (48, 48)) is images


@pytest.mark.parametrize(("max_grid", "grids"), [(None, [(8, 8), (3, 2)]), (4, [(4, 4), (3, 2)]), (2, [(2, 2)] * 2)])
def test_max_grid_averages_larger_maps(max_grid, grids):
    teachers = {name: teacher for name, teacher in mixed().items() if name != "free"}
    whole = Committee(teachers)(make_batch())
    limited = Committee(teachers, max_grid)(make_batch())
    assert [one.grid for one in limited.values()] == grids
    for name, one in limited.items():
        assert torch.equal(one.summary, whole[name].summary)
        wanted = F.adaptive_avg_pool2d(whole[name].patches, one.grid)
        torch.testing.assert_close(one.patches, wanted)


def test_teachers_are_frozen_and_always_in_eval_mode():
    committee = Committee(mixed())
    task = nn.ModuleDict({"committee": committee})
    before = {name: value.clone() for name, value in committee.state_dict().items()}
    task.train()
    assert not any(module.training for module in committee.modules())
    features = committee(make_batch())
    assert not any(weight.requires_grad for weight in committee.parameters())
    assert not any(one.summary.requires_grad or one.patches.requires_grad for one in features.values())
    after = committee.state_dict()  # batch norm statistics among them
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_float32_whatever_the_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        features = Committee(mixed())(make_batch())
    assert all(one.summary.dtype == one.patches.dtype == torch.float32 for one in features.values())


def test_nobody_is_no_committee():
    with pytest.raises(ValueError, match="at least one teacher"):
        Committee({})


@pytest.mark.parametrize(
    ("specs", "names"),
    [
        (["onnx/a/depth.onnx", "onnx//b/semantic.onnx"], ["depth", "semantic"]),
        (["run/runs/x/experts/what", "run/runs/x/experts/where/"], ["what", "where"]),
        (["timm/vit_small_patch16_224.augreg?pretrained=false"], ["vit_small_patch16_224_augreg"]),
        (["python/pkg.module:make?path=a/b", "python//abs/file.py:build"], ["make", "build"]),
        (["timm/local-dir:/a/b"], ["b"]),
        (["onnx/a/x.onnx", "onnx/b/x.onnx", "onnx/c/x.onnx"], ["x", "x-2", "x-3"]),
        (["onnx/a-2.onnx", "onnx/a.onnx", "onnx/x/a.onnx"], ["a-2", "a", "a-3"]),
        (["onnx/keys.onnx"], ["keys-2"]),  # torch's ModuleDict keeps "keys" for itself
    ],
)
def test_short_names(specs, names):
    assert short_names(specs) == names


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from(["a", "a-2", "a.2", "a-2-2", "a-3", "keys", "training", "b c", "ä", "_"]), max_size=9))
def test_short_names_are_unique_and_name_modules(stems):
    names = short_names([f"onnx/{stem}.onnx" for stem in stems])
    assert len(set(names)) == len(stems)
    nn.ModuleDict({name: nn.Identity() for name in names})


@torch.no_grad()
def test_a_committee_from_specs(tmp_path):
    encoder = load_encoder("timm/test_vit", pretrained=False)
    specs = [f"run/{save_encoder(encoder, tmp_path / folder / 'same')}" for folder in ("one", "two")]
    committee = load_committee(specs, max_grid=3)
    assert [name for name, _ in committee.items()] == ["same", "same-2"] and committee.max_grid == 3
    assert [teacher.name for _, teacher in committee.items()] == specs
    features = committee(make_batch(side=64), size=64)
    assert torch.equal(features["same"].patches, features["same-2"].patches) and features["same"].grid == (3, 3)


# Licences


def saved(folder, licence, teachers=()):
    lineage = [{"name": f"python/t:{number}", "licence": one} for number, one in enumerate(teachers)]
    encoder = load_encoder("timm/test_vit", pretrained=False)
    return f"run/{save_encoder(encoder, folder, license=licence, details={'teachers': lineage})}"


def test_permissive_models_pass(tmp_path):
    specs = [saved(tmp_path / "own", "mit"), saved(tmp_path / "taught", "other", ["mit", "apache-2.0"])]
    specs.append("timm/vit_large_patch14_reg4_dinov2.lvd142m?img_size=224")
    require_permissive(specs)
    with pytest.raises(ValueError, match="cc-by-nc"):
        require_permissive([*specs, saved(tmp_path / "research", "cc-by-nc-4.0")])


def test_restricted_models_are_named_with_their_licence_whether_own_or_inherited(tmp_path):
    own, taught, silent = (
        saved(tmp_path / name, licence, teachers)
        for name, licence, teachers in (
            ("own", "cc-by-nc-4.0", []),
            ("taught", "mit", ["mit", "dinov3-license"]),
            ("silent", None, []),
        )
    )
    with pytest.raises(ValueError, match="permissive_only") as refusal:
        require_permissive([own, saved(tmp_path / "free", "mit"), taught, silent])
    assert str(refusal.value).splitlines()[1:-1] == [
        f"  {own}: non-commercial (cc-by-nc-4.0)",
        f"  {taught}: custom terms (dinov3-license)",
        f"  {silent}: unknown (no licence stated)",
    ]


def test_weights_that_timm_would_fetch_are_judged_before_anything_is_loaded(monkeypatch):
    def load_nothing(*_):
        raise AssertionError("loaded")

    monkeypatch.setattr("eyespot.encoders.frozen.load_encoder", load_nothing)
    restricted = {
        "timm/vit_base_patch16_dinov3.lvd1689m": "custom terms (dinov3-license)",
        "timm/vit_tiny_patch16_dinov3_qkvb.eupe_lvd1689m?img_size=64": (
            "non-commercial (fair-noncommercial-research-license)"
        ),
        "timm/vit_tiny_patch16_dinov3_qkvb?pretrained=true": "non-commercial (fair-noncommercial-research-license)",
        "timm/vit_so400m_patch14_siglip_gap_224.pali_mix": "custom terms (gemma)",
        "timm/resnet50.bamboo": "unknown (no licence stated)",
    }
    with pytest.raises(ValueError) as refusal:
        require_permissive(["onnx/large.onnx", "timm/test_vit", *restricted])
    assert str(refusal.value).splitlines()[1:-1] == [f"  {spec}: {words}" for spec, words in restricted.items()]


def test_what_a_spec_says_of_its_weights_goes_before_the_registry():
    require_permissive(["timm/test_vit?weights=own.pt&license=mit", "timm/resnet50.bamboo?license=mit"])
    with pytest.raises(ValueError, match="custom terms"):
        require_permissive(["timm/test_vit?license=gemma"])
    for unknown in ("weights=own.pt", "pretrained=false"):
        with pytest.raises(ValueError, match="no licence stated"):
            require_permissive([f"timm/test_vit?{unknown}"])


@pytest.mark.parametrize(
    ("spec", "random"),
    [
        ("timm/test_vit?pretrained=false", True),
        ("timm/test_vit?img_size=64&pretrained=false", True),
        ("timm/test_vit", False),
        ("timm/test_vit?pretrained=true", False),
        ("timm/test_vit?weights=a.pt&pretrained=false", False),
        ("run/runs/x", False),
    ],
)
def test_random_weights_are_told_from_others(spec, random):
    assert has_random_weights(spec) is random
