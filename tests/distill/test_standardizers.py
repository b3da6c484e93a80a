import numpy as np
import pytest
import torch

from eyespot.distill.features.standardizers import STANDARDIZERS, EmaStandardizer, FeatureStandardizer
from eyespot.features import Features
from eyespot.randomness import torch_generator

FITTED = [kind for kind in STANDARDIZERS if kind != "none"]
WIDTHS = [1, 2, 5, 7, 12, 16, 33]


def values(width, count=40, grid=(3, 4)):
    """Maps [count, width, *grid] (or vectors) with correlated channels, unequal scales and means far from zero."""
    generator = torch_generator("values", width, count)
    rows = torch.randn(count, *grid, width, generator=generator)
    mixing = torch.randn(width, width, generator=generator) * torch.logspace(-2, 2, width)
    return (rows @ mixing + 10 * torch.randn(width, generator=generator)).movedim(-1, 1).contiguous()


def fitted(kind, *batches):
    standardizer = STANDARDIZERS[kind](batches[0].shape[1])
    for batch in batches:
        standardizer.observe(batch)
    standardizer.finish()
    return standardizer.eval()


def rows(maps):
    return maps.double().movedim(1, -1).flatten(0, -2)


@pytest.mark.parametrize("grid", [(), (3, 4)], ids=["summaries", "patches"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", STANDARDIZERS)
def test_the_inverse_undoes_it(kind, width, grid):
    maps = values(width, grid=grid)
    standardizer = fitted(kind, maps)
    there = standardizer(maps)
    assert there.shape == maps.shape and there.dtype == torch.float32
    tolerance = 1e-5 * maps.abs().max().item()
    torch.testing.assert_close(standardizer.inverse(there), maps, rtol=0, atol=tolerance)
    unseen = values(width, 5, grid)
    torch.testing.assert_close(standardizer.inverse(standardizer(unseen)), unseen, rtol=0, atol=10 * tolerance)


@pytest.mark.parametrize("kind", ["channel", "ema"])
def test_channel_statistics_are_those_of_numpy(kind):
    maps = values(7)
    standardizer = fitted(kind, maps)
    flat = maps.numpy().astype(np.float64).transpose(0, 2, 3, 1).reshape(-1, 7)
    np.testing.assert_allclose(standardizer.mean.numpy(), flat.mean(0), rtol=1e-6)
    np.testing.assert_allclose(standardizer.std.numpy(), flat.std(0), rtol=1e-6)
    there = rows(standardizer(maps))
    torch.testing.assert_close(there.mean(0), torch.zeros(7, dtype=torch.float64), rtol=0, atol=1e-3)
    torch.testing.assert_close(there.var(0, unbiased=False), torch.ones(7, dtype=torch.float64), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", FITTED)
def test_sums_over_batches_are_one_batch(kind):
    maps = values(5)
    whole, parts = fitted(kind, maps), fitted(kind, *maps.split([7, 1, 20, 12]))
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(parts(maps), whole(maps), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("width", [*WIDTHS, 24, 191])
def test_phi_s_gives_every_channel_variance_one(width):
    """PHI-S (RADIOv2.5): equal variance in every channel, an orthogonal map up to one scale."""
    maps = values(width, 300)
    standardizer = fitted("phi_s", maps)
    there = rows(standardizer(maps))
    torch.testing.assert_close(there.mean(0), torch.zeros(width, dtype=torch.float64), rtol=0, atol=1e-3)
    torch.testing.assert_close(there.var(0, unbiased=False), torch.ones(width, dtype=torch.float64), rtol=0, atol=1e-3)
    product = standardizer.rotation.double() @ standardizer.rotation.double().T
    torch.testing.assert_close(product, torch.eye(width, dtype=torch.float64), rtol=0, atol=1e-5)


def test_phi_s_keeps_the_proportions_of_distances():
    maps = values(7, grid=())
    there = fitted("phi_s", maps)(maps)
    ratio = torch.pdist(there.double()) / torch.pdist(maps.double())
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-4, atol=0)


def test_phi_s_of_fewer_vectors_than_channels():
    maps = values(33, 5, ())
    standardizer = fitted("phi_s", maps)
    there = standardizer(maps)
    torch.testing.assert_close(rows(there).var(0, unbiased=False), torch.ones(33).double(), rtol=0, atol=1e-3)


def test_ema_moves_in_training_mode_only():
    first, second = values(4, 20), 3 * values(4, 30) - 5
    standardizer = EmaStandardizer(4, momentum=0.1)
    standardizer.observe(first)
    standardizer.finish()
    mean, std = standardizer.mean.clone(), standardizer.std.clone()
    standardizer.eval()(second)
    assert torch.equal(standardizer.mean, mean) and torch.equal(standardizer.std, std)

    there = standardizer.train()(second)
    batch = rows(second)
    wanted_mean = 0.9 * mean + 0.1 * batch.mean(0).float()
    wanted_std = (0.9 * std.square() + 0.1 * batch.var(0, unbiased=False).float()).sqrt()
    torch.testing.assert_close(standardizer.mean, wanted_mean)
    torch.testing.assert_close(standardizer.std, wanted_std)
    torch.testing.assert_close(there, standardizer.eval()(second))


@pytest.mark.parametrize("kind", ["channel", "phi_s"])
def test_the_others_are_frozen(kind):
    maps = values(4)
    standardizer = fitted(kind, maps).train()
    before = {name: value.clone() for name, value in standardizer.state_dict().items()}
    standardizer(maps * 7)
    assert all(torch.equal(value, before[name]) for name, value in standardizer.state_dict().items())


@pytest.mark.parametrize("kind", FITTED)
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(kind, poison):
    maps = values(4)
    maps[3, 2, 1, 1] = poison
    with pytest.raises(ValueError, match="NaN or infinite"):
        fitted(kind, values(4), maps)


@pytest.mark.parametrize("kind", FITTED)
def test_nothing_observed_is_refused(kind):
    with pytest.raises(ValueError, match="at least one batch"):
        STANDARDIZERS[kind](4).finish()


@pytest.mark.parametrize("kind", STANDARDIZERS)
@pytest.mark.parametrize("constant", [0.0, 1000.1])
def test_constant_channels_stay_finite_and_come_back(kind, constant):
    for maps in (values(4), torch.full((10, 4, 2, 2), constant)):
        maps[:, 1] = constant
        standardizer = fitted(kind, maps)
        there = standardizer(maps)
        assert there.isfinite().all()
        torch.testing.assert_close(standardizer.inverse(there), maps, rtol=1e-4, atol=1e-2)
        if kind == "channel":
            assert there[:, 1].abs().max() < 1e-3


@pytest.mark.parametrize("kind", STANDARDIZERS)
def test_saved_and_loaded(kind):
    maps = values(5)
    one = fitted(kind, maps)
    other = STANDARDIZERS[kind](5).eval()
    other.load_state_dict(one.state_dict())
    assert torch.equal(other(maps), one(maps))
    assert sum(1 for _ in other.parameters()) == 0  # statistics are not trained


@pytest.mark.parametrize("kind", STANDARDIZERS)
def test_float32_whatever_the_autocast(kind):
    maps = values(12)
    standardizer = fitted(kind, maps)
    wanted, back = standardizer(maps), standardizer.inverse(maps)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(standardizer(maps), wanted) and torch.equal(standardizer.inverse(maps), back)
        again = fitted(kind, maps)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in standardizer.state_dict().items())


@pytest.mark.parametrize("kind", STANDARDIZERS)
def test_summaries_and_patches_have_their_own(kind):
    summary, patches = values(6, grid=()), values(5)
    both = FeatureStandardizer(kind, (6, 5))
    features = Features(summary, patches)
    both.observe(features)
    both.finish()
    there = both.eval()(features)
    assert torch.equal(there.summary, fitted(kind, summary)(summary))
    assert torch.equal(there.patches, fitted(kind, patches)(patches))
    back = both.inverse(there)
    torch.testing.assert_close(back.summary, summary, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(back.patches, patches, rtol=1e-3, atol=1e-2)


def test_a_dead_channel_that_wakes_does_not_explode():
    maps = values(5)
    maps[:, 2] = 0.0
    standardizer = fitted("channel", maps)
    awake = maps.clone()
    awake[:, 2] = standardizer.std.median()
    assert standardizer(awake)[:, 2].abs().max() <= 1001
    torch.testing.assert_close(standardizer.inverse(standardizer(awake)), awake, rtol=1e-4, atol=1e-3)
