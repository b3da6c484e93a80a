"""RandAugment and random erasing: pure functions of a view, timm's numbers, and nothing else moved."""

import dataclasses
import json
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from timm.data import create_transform
from timm.data.auto_augment import rand_augment_transform

from eyespot.data import DataConfig, PictureLoader
from eyespot.data.views.config import ViewConfig
from eyespot.data.views.draw import View, apply_view, draw_view
from eyespot.data.views.strong import ERASED_AREA, _transform, draw_erased, erase, randaugment
from eyespot.randomness import seed_of

WHOLE = (0.0, 0.0, 1.0, 1.0)
POLICIES = ["rand-m7-mstd0.5", "rand-m9-mstd0.5-inc1", "rand-m9-n3-mmax15-p0.8", "rand-mstd1-tweights", "rand"]
STRONG = ViewConfig.classifier("rand-m9-mstd0.5-inc1", erase=0.5, erase_mode="pixel")


def photo(width=40, height=32):
    """Smooth and coloured, so that every operation shows."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [x * 6 % 256, y * 7 % 256, (x + y) * 3 % 256]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def seen(config, key, size=24):
    picture = photo()
    return apply_view(picture, draw_view(config, picture.size, key), size)


@pytest.mark.parametrize("policy", POLICIES)
def test_randaugment_is_timms(policy):
    """The same operations with the same magnitudes as timm draws from the same state."""
    picture = photo(32, 32)
    for seed in range(8):
        transform = rand_augment_transform(policy, {"translate_const": 14, "img_mean": (124, 116, 104)})
        number = seed_of("randaugment", seed)
        random.seed(number)
        np.random.seed(number % 2**32)
        assert np.array_equal(np.array(randaugment(picture, policy, seed)), np.array(transform(picture)))


def test_colours_and_size_are_those_of_timms_training_transform():
    """Our hyper-parameters against what timm's factory makes of the same options."""
    composed = create_transform(
        224, is_training=True, auto_augment="rand-m9-inc1", re_prob=0.25, interpolation="random"
    )
    theirs = next(step for step in composed.transforms if type(step).__name__ == "RandAugment")
    ours = _transform("rand-m9-inc1", 224)
    assert repr(ours) == repr(theirs)
    assert [op.kwargs for op in ours.ops] == [op.kwargs for op in theirs.ops]
    assert [op.hparams for op in ours.ops] == [op.hparams for op in theirs.ops]
    names = [type(step).__name__ for step in composed.transforms]
    assert "ColorJitter" not in names and names[-1] == "RandomErasing"
    assert names.index("RandomHorizontalFlip") < names.index("RandAugment")


def test_a_view_is_replayed_from_its_record():
    for key in range(20):
        view = draw_view(STRONG, (40, 32), key)
        stored = json.loads(json.dumps(dataclasses.asdict(view)))
        boxes = {name: tuple(stored[name]) for name in ("box", "erased") if stored[name]}
        again = View(**{**stored, **boxes})
        assert again == view
        assert torch.equal(apply_view(photo(), again, 24), apply_view(photo(), view, 24))


def test_draws_depend_on_their_keys_alone_and_disturb_nobody():
    expected = [seen(STRONG, key) for key in range(10)]
    assert len({bytes(view.numpy().tobytes()) for view in expected}) == 10
    random.seed(1)
    np.random.seed(1)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert all(torch.equal(seen(STRONG, key), expected[key]) for key in reversed(range(10)))
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1] and torch.equal(torch.get_rng_state(), states[2])


def test_what_is_off_changes_nothing():
    """Views as they were before there was strong augmentation, and other options untouched by it."""
    before = {"randaugment": None, "erased": None, "erase_mode": "const", "strong_seed": 0}
    for key in range(10):
        plain = dataclasses.asdict(draw_view(ViewConfig(), (40, 32), key))
        assert {name: plain[name] for name in before} == before
        config = dataclasses.replace(ViewConfig(), randaugment="rand-m9", erase=1.0)
        strong = dataclasses.asdict(draw_view(config, (40, 32), key))
        assert {name for name in plain if plain[name] != strong[name]} <= {"randaugment", "erased", "strong_seed"}


def test_a_known_view_is_still_the_same():
    """A change here changes every run and cache that anyone has begun."""
    views = [draw_view(ViewConfig(), (40, 32), 1, 2, number) for number in (3, 4)]
    assert views[0].box == pytest.approx((0.192716925, 0.010330358, 0.910196521, 0.86802442), abs=1e-9)
    values = [getattr(views[1], name) for name in ("brightness", "contrast", "saturation", "hue", "blur_sigma")]
    assert values == pytest.approx([1.153996252, 0.988745592, 1.140660408, 0.0520091975, 1.231204857], abs=1e-9)
    assert (views[1].flip, views[1].grayscale, views[1].solarize) == (True, False, False)


def test_without_strong_options_the_setting_is_what_it_was():
    """Teachers' caches made before there were any must stay valid."""
    fields = {field.name for field in dataclasses.fields(ViewConfig)} - {"randaugment", "erase", "erase_mode"}
    assert ViewConfig().as_setting().keys() == fields
    assert STRONG.as_setting() == dataclasses.asdict(STRONG)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_erased_rectangles_keep_timms_bounds(key):
    left, top, right, bottom = draw_erased(1.0, key)
    width, height = right - left, bottom - top
    assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1
    assert ERASED_AREA[0] - 1e-9 <= width * height <= ERASED_AREA[1] + 1e-9
    assert 0.3 - 1e-9 <= height / width <= 1 / 0.3 + 1e-9


def test_how_often_and_how_much_is_erased():
    drawn = [draw_erased(0.25, "a", key) for key in range(4000)]
    boxes = [box for box in drawn if box]
    assert len(boxes) / 4000 == pytest.approx(0.25, abs=0.025)
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in boxes]
    assert np.mean(areas) == pytest.approx(np.mean(ERASED_AREA), abs=0.01)
    assert np.mean([(box[0] + box[2]) / 2 for box in boxes]) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("size", [1, 7, 32, 64])
def test_erasing_fills_the_rectangle_and_nothing_else(size):
    box = (0.25, 0.5, 0.75, 1.0)
    before = np.full((size, size, 3), 7, np.uint8)
    flat, noisy = before.copy(), before.copy()
    erase(flat, box, "const", 5)
    erase(noisy, box, "pixel", 5)
    where = (flat != 7).any(-1)
    assert np.array_equal(np.unique(flat[where], axis=0), [[124, 116, 104]])
    assert where.sum() == max(1, round(size * 0.75) - round(size * 0.25)) * max(1, size - int(size / 2 + 0.5))
    assert not (noisy != 7).any(-1)[~where].any()
    if size > 32:
        hole = noisy[where].astype(float)
        assert hole.mean(0) == pytest.approx([124, 116, 104], abs=8)
        assert hole.std(0) == pytest.approx([58, 57, 57], abs=8)
        again = before.copy()
        erase(again, box, "pixel", 5)
        assert np.array_equal(again, noisy)
        erase(again, box, "pixel", 6)
        assert not np.array_equal(again, noisy)


def test_erasing_comes_last():
    config = dataclasses.replace(ViewConfig.plain(), solarize=1.0, erase=1.0)
    view = apply_view(Image.new("RGB", (32, 32), (200, 200, 200)), draw_view(config, (32, 32), 0), 32)
    colours = {tuple(colour) for colour in view.flatten(1).T.tolist()}
    assert colours == {(55, 55, 55), (124, 116, 104)}


def test_views_of_classifiers_are_timms():
    config = ViewConfig.classifier()
    composed = create_transform(224, is_training=True)
    crop, flip, jitter = composed.transforms[:3]
    assert (config.scale, config.ratio) == (crop.scale, pytest.approx(crop.ratio))
    assert config.flip == flip.p
    assert config.jitter == 1 and config.hue == 0 and jitter.hue is None
    for name in ("brightness", "contrast", "saturation"):
        strength = getattr(config, name)
        assert (1 - strength, 1 + strength) == pytest.approx(getattr(jitter, name))
    assert ViewConfig.classifier("rand-m7").jitter == 0  # timm drops the jitter beside RandAugment
    assert ViewConfig.classifier(color_jitter=0).jitter == 0


@pytest.mark.parametrize(
    "wrong",
    [
        "rand-m7-std0.5",
        "rand-m",
        "rand-mstd",
        "random-m7",
        "m7",
        "rand-m7_mstd0.5",
        "rand-tweight",
        "rand-m7.5",
        "rand-p.5",
        "",
    ],
)
def test_misspelt_policies_are_refused(wrong):
    with pytest.raises(ValidationError, match="for example rand-m9"):
        ViewConfig(randaugment=wrong)


def test_config_survives_json():
    adapter = TypeAdapter(ViewConfig)
    assert adapter.validate_json(adapter.dump_json(STRONG)) == STRONG


class Photos:
    name, classes = "photos", None

    def __len__(self):
        return 8

    def read(self, index):
        return photo(40 + index, 32)

    def picture_name(self, index):
        return str(index)

    def label(self, index):
        return None

    def fingerprint(self):
        return "photos"


def test_batches_are_the_same_from_workers():
    batches = []
    for workers in (0, 2):
        loader = PictureLoader(
            DataConfig(sources=["photos"], size=24, view=STRONG, workers=workers), 4, sources=[Photos()]
        )
        made = loader.batches(3)
        batches.append([next(made)["images"] for _ in range(3)])
        made.close()
    assert all(torch.equal(one, other) for one, other in zip(*batches, strict=True))
