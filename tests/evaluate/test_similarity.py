"""CKA without bias, and ridge regression from one model's features to another's."""

import math

import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from eyespot.evaluate.probing.similarity import RidgeData, debiased_cka, ridge_r2
from eyespot.evaluate.protocols.feature_geometry import linear_cka


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_debiased_cka_equals_the_estimate_of_song_et_al_by_its_definition():
    first = noise(9, 4)
    second = torch.cat([first[:, :2], noise(9, 3, seed=1)], dim=1) + 3

    def hsic(x, y):
        k, other = x @ x.T, y @ y.T
        k, other = k - torch.diag(k.diag()), other - torch.diag(other.diag())
        n, one = len(k), torch.ones(len(k), dtype=torch.float64)
        middle = (one @ k @ one) * (one @ other @ one) / ((n - 1) * (n - 2))
        return (torch.trace(k @ other) + middle - 2 / (n - 2) * one @ k @ other @ one) / (n * (n - 3))

    wanted = hsic(first, second) / (hsic(first, first) * hsic(second, second)).sqrt()
    assert debiased_cka(first, second) == pytest.approx(float(wanted))


def test_independent_features_have_no_likeness_even_where_they_are_wide():
    first, second = noise(60, 300), noise(60, 200, seed=1)
    assert linear_cka(first, second) > 0.5  # the bias
    assert abs(debiased_cka(first, second)) < 0.05


def test_rotation_scale_and_offset_change_nothing():
    first = noise(50, 8)
    rotation = torch.linalg.qr(noise(8, 8, seed=1)).Q
    assert debiased_cka(first, 3 * first @ rotation + 7) == pytest.approx(1)
    assert math.isnan(debiased_cka(first, torch.full((50, 2), 0.1)))


def test_cka_refuses_what_it_cannot_compare():
    with pytest.raises(ValueError, match="50 and 49"):
        debiased_cka(noise(50, 2), noise(49, 2))
    with pytest.raises(ValueError, match="at least 4"):
        debiased_cka(noise(3, 2), noise(3, 2))


def test_ridge_equals_scikit_learn():
    inputs, targets = noise(40, 5), noise(40, 3, seed=1)
    targets[:, :2] += inputs[:, :2]
    x, y = (RidgeData.by_picture(part).standardised() for part in (inputs, targets))
    strength = 0.3
    model = Ridge(alpha=strength * len(x.fit), fit_intercept=False).fit(x.fit, y.fit)
    residual = (y.test - torch.from_numpy(model.predict(x.test))).square().sum()
    wanted = 1 - float(residual / y.test.square().sum())
    found = ridge_r2(RidgeData.by_picture(inputs), {"y": RidgeData.by_picture(targets)}, strengths=[strength])
    assert found["y"] == pytest.approx(wanted)
    assert found["y"] == pytest.approx(
        r2_score(y.test, model.predict(x.test), multioutput="variance_weighted"), abs=0.2
    )


def test_linear_images_are_predicted_and_noise_is_not():
    inputs = noise(40, 6, 3, 3)
    image = torch.einsum("oc,bchw->bohw", noise(4, 6, seed=1), inputs)
    found = ridge_r2(
        RidgeData.by_picture(inputs),
        {"image": RidgeData.by_picture(image), "noise": RidgeData.by_picture(noise(40, 4, 3, 3, seed=2))},
    )
    assert found["image"] > 0.999
    assert abs(found["noise"]) < 0.1


def test_the_cells_of_a_picture_stay_in_one_part():
    maps = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 2, 3, 3)
    split = RidgeData.by_picture(maps)
    assert [part.unique().tolist() for part in (split.fit, split.choose, split.test)] == [[0, 1, 2, 3], [4, 5], [6, 7]]
    assert split.fit.shape == (36, 2)
    with pytest.raises(ValueError, match="3 pictures are too few"):
        RidgeData.by_picture(maps[:3])


def test_a_dead_channel_stays_quiet():
    inputs = torch.cat([noise(40, 3), torch.zeros(40, 1, dtype=torch.float64)], dim=1)
    inputs[-1, 3] = 1e-9  # wakes where it is tested
    assert ridge_r2(RidgeData.by_picture(inputs), {"same": RidgeData.by_picture(inputs[:, :3])})["same"] > 0.999
