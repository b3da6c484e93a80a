import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from eyespot.data.views.config import ViewConfig
from eyespot.data.views.draw import View, apply_view, draw_view

WHOLE = (0.0, 0.0, 1.0, 1.0)
SHARES = st.floats(0, 1)


def noise(width=40, height=30, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def pixels(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def only(**changes):
    """A config in which nothing happens but `changes`."""
    return dataclasses.replace(ViewConfig.plain(), **changes)


def test_plain_view_of_a_square_is_the_picture():
    picture = noise(32, 32)
    view = draw_view(ViewConfig.plain(), picture.size, 0)
    assert view == View(box=WHOLE)
    assert torch.equal(apply_view(picture, view, 32), pixels(picture))


@pytest.mark.parametrize("size", [(60, 20), (20, 60)])
def test_plain_view_is_the_middle_square(size):
    picture = noise(*size)
    result = apply_view(picture, draw_view(ViewConfig.plain(), size, 3), 20)
    left, top = (size[0] - 20) // 2, (size[1] - 20) // 2
    assert torch.equal(result, pixels(picture.crop((left, top, left + 20, top + 20))))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 10**6), SHARES, SHARES)
def test_crops_keep_their_bounds(width, height, key, one, other):
    low, high = sorted((max(one, 0.01), max(other, 0.01)))
    config = only(scale=(low, high), ratio=(0.5, 2.0))
    left, top, right, bottom = draw_view(config, (width, height), key).box
    assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1
    ratio = (right - left) * width / ((bottom - top) * height)
    assert 0.5 - 1e-6 <= ratio <= 2 + 1e-6
    area = (right - left) * (bottom - top)
    fallback = abs(max(right - left, bottom - top) - 1) < 1e-9
    assert low - 1e-9 <= area <= high + 1e-9 or fallback


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 10**6), st.integers(1, 64))
def test_any_view_of_any_shape_can_be_seen(width, height, key, size):
    picture = noise(width, height)
    result = apply_view(picture, draw_view(ViewConfig(), picture.size, key), size)
    assert result.shape == (3, size, size) and result.dtype == torch.uint8 and result.is_contiguous()


def test_draw_is_a_pure_function_of_its_keys():
    draws = [draw_view(ViewConfig(), (40, 30), 1, 2, key) for key in range(20)]
    assert draws == [draw_view(ViewConfig(), (40, 30), 1, 2, key) for key in range(20)]
    assert len({draw.box for draw in draws}) == 20
    np.random.seed(0)
    torch.manual_seed(0)
    assert draw_view(ViewConfig(), (40, 30), 1, 2, 0) == draws[0]


@pytest.mark.parametrize(
    "change",
    [{"flip": 1.0}, {"jitter": 0.0}, {"grayscale": 1.0}, {"blur": 0.0}, {"blur_sigma": (1, 9)}, {"solarize": 1.0}],
)
def test_an_option_does_not_shift_the_other_draws(change):
    own = {
        "jitter": {"brightness", "contrast", "saturation", "hue"},
        "blur": {"blur_sigma"},
    }.get(next(iter(change)), set(change))
    for key in range(10):
        before = dataclasses.asdict(draw_view(ViewConfig(), (40, 30), key))
        after = dataclasses.asdict(draw_view(dataclasses.replace(ViewConfig(), **change), (40, 30), key))
        assert {name for name in before if before[name] != after[name]} <= own


def test_probabilities_and_ranges_are_met():
    config = ViewConfig()
    views = [draw_view(config, (100, 100), "statistics", key) for key in range(4000)]

    def share(happens):
        return np.mean([happens(view) for view in views])

    assert share(lambda view: view.flip) == pytest.approx(config.flip, abs=0.03)
    assert share(lambda view: view.brightness != 1) == pytest.approx(config.jitter, abs=0.03)
    assert share(lambda view: view.blur_sigma > 0) == pytest.approx(config.blur, abs=0.03)
    assert share(lambda view: view.solarize) == pytest.approx(config.solarize, abs=0.03)
    assert not any(view.grayscale for view in views)
    for name in ("brightness", "contrast", "saturation"):
        strength = getattr(config, name)
        values = [getattr(view, name) for view in views]
        assert 1 - strength <= min(values) < 1 - 0.95 * strength and 1 + 0.95 * strength < max(values) <= 1 + strength
    hues = [view.hue for view in views]
    assert -0.1 <= min(hues) < -0.095 and 0.095 < max(hues) <= 0.1
    areas = [(v.box[2] - v.box[0]) * (v.box[3] - v.box[1]) for v in views]
    assert np.mean(areas) == pytest.approx(0.62, abs=0.05)


def test_flip_mirrors():
    picture = noise(16, 16)
    assert torch.equal(apply_view(picture, View(WHOLE, flip=True), 16), pixels(picture).flip(-1))


def test_crop_and_resize_equal_pillow_on_the_cropped_region():
    picture = noise(40, 40)
    result = apply_view(picture, View((0.25, 0.5, 0.75, 1.0)), 20)
    assert torch.equal(result, pixels(picture.crop((10, 20, 30, 40))))


def test_brightness_and_contrast_are_the_usual_blends():
    picture = noise(16, 16)
    values = pixels(picture).double()
    luma = torch.tensor([0.299, 0.587, 0.114], dtype=torch.double)
    brighter = apply_view(picture, View(WHOLE, brightness=1.3), 16)
    assert (brighter - (1.3 * values).clamp(max=255)).abs().max() <= 0.51
    mean = (luma @ values.flatten(1)).mean()
    duller = apply_view(picture, View(WHOLE, contrast=0.6), 16)
    assert (duller - (0.6 * values + 0.4 * mean)).abs().max() <= 0.51


def test_saturation_zero_and_grayscale_are_the_luma():
    picture = noise(16, 16)
    luma = (torch.tensor([0.299, 0.587, 0.114]) @ pixels(picture).float().flatten(1)).view(16, 16)
    for view in (View(WHOLE, saturation=0.0), View(WHOLE, grayscale=True)):
        assert (apply_view(picture, view, 16).float() - luma).abs().max() <= 0.51


def test_hue_turns_about_grey():
    grey = Image.new("RGB", (4, 4), (77, 77, 77))
    assert (apply_view(grey, View(WHOLE, hue=0.3), 4).int() - 77).abs().max() <= 1
    # A small turn one way and back; moderate colours, so that nothing is clipped.
    picture = Image.new("RGB", (4, 4), (120, 100, 90))
    turned = apply_view(picture, View(WHOLE, hue=0.1), 4)
    assert (turned.int() - pixels(picture).int()).abs().max() > 3
    back = apply_view(Image.fromarray(turned.permute(1, 2, 0).numpy()), View(WHOLE, hue=-0.1), 4)
    assert (back.int() - pixels(picture).int()).abs().max() <= 2


def test_solarize_inverts_the_bright_half():
    picture = noise(16, 16)
    values = pixels(picture).int()
    expected = torch.where(values < 128, values, 255 - values)
    assert torch.equal(apply_view(picture, View(WHOLE, solarize=True), 16).int(), expected)


@pytest.mark.parametrize("size", [112, 224])
def test_blur_is_the_same_at_any_size(size):
    impulse = Image.new("RGB", (size, size))
    impulse.putpixel((size // 2, size // 2), (255, 255, 255))
    blurred = apply_view(impulse, View(WHOLE, blur_sigma=4.0), size)[0].double()
    offset = torch.arange(size) - size // 2
    variance = (blurred.sum(0) * offset**2).sum() / blurred.sum()
    # Pixels of a view of 224; eight bits cut the tails of the impulse's image.
    assert variance.sqrt().item() == pytest.approx(4.0 * size / 224, rel=0.25)


def test_view_is_plain_json():
    view = draw_view(ViewConfig(), (40, 30), 5)
    stored = json.loads(json.dumps(dataclasses.asdict(view)))
    assert View(**{**stored, "box": tuple(stored["box"])}) == view


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"flip": 1.5}, "less than or equal to 1"),
        ({"scale": (0.5, 0.2)}, "smallest <= largest"),
        ({"scale": (0.0, 1.0)}, "0 < smallest"),
        ({"ratio": (-1, 1)}, "aspect ratios"),
        ({"blur_sigma": (2, 1)}, "pixels"),
        ({"hue": 0.7}, "0.5"),
        ({"brightness": "much"}, "number"),
        ({"flipp": 0.5}, "flipp"),
    ],
)
def test_wrong_settings_say_what_would_be_right(wrong, message):
    with pytest.raises(ValidationError, match=message):
        ViewConfig(**wrong)


def test_config_survives_json():
    adapter = TypeAdapter(ViewConfig)
    config = ViewConfig(scale=(0.1, 0.9), blur=0.25)
    assert adapter.validate_json(adapter.dump_json(config)) == config
