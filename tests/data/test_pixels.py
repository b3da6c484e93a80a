"""What is done to the bytes of a view, against the same in double precision, by Pillow and by SciPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from eyespot.data.views.pixels import blur_weights, blurred, channel_means, recoloured, resized, solarized


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(("shape", "size"), [((70, 50), 32), ((20, 30), 64), ((33, 33), 33), ((300, 200), 40)])
def test_resized_as_by_pillow(shape, size):
    picture = Image.fromarray(noise(*shape, 3))
    expected = np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC)).astype(int)
    difference = np.abs(resized(picture, size) - expected)
    assert difference.max() <= 4 and difference.mean() < 0.3  # noise is where rounded weights show most


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=9, max_size=9), st.lists(st.floats(-200, 200), min_size=3, max_size=3))
def test_colours_are_those_of_double_precision(matrix, offset):
    planes, matrix, offset = noise(3, 40, 30), np.reshape(matrix, (3, 3)), np.array(offset)
    exact = (matrix @ planes.reshape(3, -1) + offset[:, None]).clip(0, 255).reshape(planes.shape)
    result = recoloured(planes, matrix, offset)
    assert result.dtype == np.uint8
    assert np.abs(result - exact).max() <= 0.6


def test_colours_do_not_depend_on_how_sums_are_taken():
    planes = noise(3, 64, 64)
    matrix, offset = np.random.default_rng(1).normal(0, 1, (3, 3)), np.array([10.1, -7.7, 0.3])
    whole = recoloured(planes, matrix, offset)
    # one pixel at a time: other kernels, other orders
    for y, x in np.random.default_rng(2).integers(0, 64, (50, 2)):
        assert np.array_equal(
            recoloured(planes[:, y : y + 1, x : x + 1], matrix, offset), whole[:, y : y + 1, x : x + 1]
        )
    # the colours in another order: sums in another order
    turned = recoloured(np.ascontiguousarray(planes[::-1]), matrix[:, ::-1], offset)
    assert np.array_equal(turned, whole)


@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.6, 1.0, 1.43, 2.0, 4.6, 15.0])
def test_blur_is_gaussian(sigma):
    planes = noise(3, 48, 48)
    result = blurred(planes, sigma).astype(float)
    exact = gaussian_filter(planes.astype(float), (0, sigma, sigma), mode="nearest")
    # noise of the highest contrast: rounding shows most
    assert np.abs(result - exact).max() < 4
    assert np.abs(result - exact).mean() < 0.7


@settings(max_examples=100, deadline=None)
@given(st.floats(0.5, 80))
def test_weights_of_a_blur(sigma):
    centre, *sides = blur_weights(sigma)
    assert centre + 2 * sum(sides) == 256
    assert min([centre, *sides]) >= 0
    variance = 2 * sum(weight * away**2 for away, weight in enumerate(sides, start=1)) / 256
    assert variance**0.5 == pytest.approx(sigma, rel=0.1)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_blur_is_wider_than_the_picture(size):
    planes = noise(3, size, size)
    result = blurred(planes, 20.0)
    assert result.shape == planes.shape
    assert np.ptp(result.reshape(3, -1), axis=1).max() < 60  # hardly any contrast is left


@pytest.mark.parametrize("value", [0, 1, 254, 255])
def test_blur_leaves_an_even_picture(value):
    planes = np.full((3, 20, 20), value, np.uint8)
    for sigma in (0.5, 1.3, 9.0):
        assert np.array_equal(blurred(planes, sigma), planes)


def test_solarized():
    assert solarized(np.array([0, 127, 128, 255], np.uint8)).tolist() == [0, 127, 127, 0]


def test_means():
    planes = noise(3, 300, 200)
    assert channel_means(planes) == pytest.approx(planes.reshape(3, -1).mean(1), abs=1e-9)


def test_the_same_bytes_whatever_the_threads():
    picture = Image.fromarray(noise(300, 400, 3))
    matrix = np.random.default_rng(1).normal(0, 1, (3, 3))
    before, seen = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            planes = np.array(resized(picture, 256).transpose(2, 0, 1), order="C")
            seen.append(recoloured(planes, matrix, np.zeros(3)))
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(seen[0], seen[1])
    assert np.array_equal(seen[0], seen[2])


def test_the_same_bytes_inside_a_pass_in_bfloat16():
    """Statistics are taken over batches that are made in the middle of such a pass."""
    planes = noise(3, 24, 24)
    matrix, offset = np.eye(3) * 0.7 + 0.05, np.array([3.0, -4.0, 5.5])
    picture = Image.fromarray(noise(40, 30, 3))
    plain = recoloured(planes, matrix, offset), resized(picture, 20), blurred(planes, 1.3)
    with torch.autocast("cpu", torch.bfloat16):
        inside = recoloured(planes, matrix, offset), resized(picture, 20), blurred(planes, 1.3)
    assert all(np.array_equal(one, other) for one, other in zip(plain, inside, strict=True))
