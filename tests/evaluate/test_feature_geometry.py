import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from eyespot.data.sets import TensorPictures
from eyespot.evaluate import FeatureBank
from eyespot.evaluate.protocols import feature_geometry
from eyespot.evaluate.protocols.feature_geometry import (
    draw_patches,
    effective_rank,
    linear_cka,
    norm_outliers,
    rankme,
    token_norms,
    uniformity,
)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(50, 8), (8, 50)])
def test_rankme_is_the_entropy_of_the_singular_values(shape):
    features = noise(*shape) @ torch.diag(torch.linspace(0.1, 3, shape[1])) + 1
    singular = np.linalg.svd(features.double().numpy(), compute_uv=False)
    shares = singular / singular.sum() + 1e-7
    assert rankme(features) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-6)


def test_ranks_of_known_matrices():
    assert rankme(torch.eye(6)) == pytest.approx(6, rel=1e-4)
    assert rankme(torch.ones(9, 4)) == pytest.approx(1, rel=1e-4)
    corners = torch.cat([torch.eye(3), -torch.eye(3)])
    assert effective_rank(corners + 5) == pytest.approx(3)  # centred first
    assert effective_rank(torch.full((9, 4), 0.1)) == 0.0
    assert effective_rank(noise(4000, 10)) == pytest.approx(10, rel=0.01)


def test_effective_rank_equals_numpy_on_the_covariance():
    features = noise(60, 12) @ noise(12, 12, seed=1)
    variances = np.linalg.eigvalsh(np.cov(features.double().numpy().T))
    shares = variances / variances.sum()
    assert effective_rank(features) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))


def hsic(kernel, other):
    """From the definition: trace(K H L H) / (n - 1)^2 with the centring matrix H."""
    count = len(kernel)
    centring = np.eye(count) - 1 / count
    return np.trace(kernel @ centring @ other @ centring) / (count - 1) ** 2


@pytest.mark.parametrize("widths", [(5, 9), (40, 3)])
def test_cka_equals_the_formula_with_hsic(widths):
    first = noise(30, widths[0])
    second = torch.cat([first[:, :3] * 2, noise(30, widths[1], seed=1)], dim=1) + 4
    k, other = ((part.double() @ part.double().T).numpy() for part in (first, second))
    wanted = hsic(k, other) / (hsic(k, k) * hsic(other, other)) ** 0.5
    assert linear_cka(first, second) == pytest.approx(wanted)


def test_cka_does_not_see_rotation_scale_or_offset():
    first = noise(50, 8)
    rotation = torch.linalg.qr(noise(8, 8, seed=1)).Q
    assert linear_cka(first, 3 * first @ rotation + 7) == pytest.approx(1, abs=1e-5)
    assert linear_cka(first, noise(50, 8, seed=2)) < 0.5
    with pytest.raises(ValueError, match="50 and 49"):
        linear_cka(first, first[1:])
    assert math.isnan(linear_cka(first, torch.full((50, 2), 0.1)))


def test_uniformity_by_brute_force():
    features = noise(20, 4)
    unit = F.normalize(features.double(), dim=1)
    pairs = [torch.exp(-2 * (unit[i] - unit[j]).square().sum()) for i in range(20) for j in range(i)]
    assert uniformity(features) == pytest.approx(float(torch.stack(pairs).mean().log()))
    assert uniformity(torch.ones(5, 3)) == pytest.approx(0)
    assert uniformity(noise(300, 2000)) == pytest.approx(-4, abs=0.05)


def test_outlying_tokens_are_counted():
    patches = 1 + 0.1 * noise(100, 16, 4, 4)
    patches[:7, :, 2, 3] *= 30
    norms = token_norms(patches.half())
    assert norms.shape == (1600,)
    share, ratio = norm_outliers(norms)
    assert share == pytest.approx(7 / 1600) and ratio == pytest.approx(30, rel=0.05)


def test_equal_or_merely_spread_norms_are_no_outliers():
    unit = F.normalize(noise(10, 8, 4, 4), dim=1).half()
    assert norm_outliers(token_norms(unit))[0] == 0.0
    assert norm_outliers(noise(5000).abs() + 1)[0] < 0.001


def test_patches_are_drawn_evenly_and_are_real_ones():
    patches = torch.arange(5 * 12).float().view(5, 1, 3, 4).repeat(1, 2, 1, 1)
    drawn = draw_patches(patches, 18, seed=0)
    assert drawn.shape == (20, 2)  # 4 of each picture
    assert torch.equal(drawn[:, 0], drawn[:, 1]) and len(drawn[:, 0].unique()) == 20
    assert (drawn[:, 0].view(5, 4) // 12 == torch.arange(5)[:, None]).all()
    assert torch.equal(draw_patches(patches, 18, seed=0), drawn)
    assert not torch.equal(draw_patches(patches, 18, seed=1), drawn)
    assert len(draw_patches(patches, 10_000, seed=0)) == 60


def test_the_task_measures_what_the_functions_say(colour_encoder):
    pictures = TensorPictures(torch.rand(30, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    bank = FeatureBank(colour_encoder())
    found = feature_geometry.run(bank, pictures)
    assert found["CKA"] is None
    assert found["RankMe"] == rankme(bank.summaries(pictures))
    assert found["patch rank"] == pytest.approx(3, rel=0.05)  # three channels of noise
    reference = colour_encoder("other")
    assert feature_geometry.run(bank, pictures, reference=reference)["CKA"] == pytest.approx(1)
    feature_geometry.run(FeatureBank(colour_encoder("third")), pictures, reference=reference)
    assert reference.pictures_seen == 30  # once for all rows
