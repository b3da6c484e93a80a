import numpy as np
import pytest
import torch

from eyespot.distill.cache.codec import Codec, RowLayout
from eyespot.distill.cache.projection import Projection, fit_projection
from eyespot.features import Features
from eyespot.randomness import torch_generator

C, D, H, W = 7, 6, 3, 5
STORES = ["bfloat16", "float16", "int8"]


def features(count=4, key=0, scale=1.0, shift=0.0):
    generator = torch_generator("codec", key)
    summary = torch.randn(count, C, generator=generator)
    return Features(summary, shift + scale * torch.randn(count, D, H, W, generator=generator))


def codec(store="bfloat16", projection=None, channels=D):
    return Codec(RowLayout(store, C, (channels, H, W)), projection, "a teacher")


def there_and_back(coder, wanted):
    records = coder.encode(wanted)
    assert records.dtype == torch.uint8 and records.shape == (len(wanted), coder.layout.record_bytes)
    return coder.decode(records)


@pytest.mark.parametrize(("store", "kind"), [("bfloat16", torch.bfloat16), ("float16", torch.float16)])
def test_halves_are_those_of_torch(store, kind):
    wanted = features()
    found = there_and_back(codec(store), wanted)
    assert torch.equal(found.summary, wanted.summary.to(kind).float())
    assert torch.equal(found.patches, wanted.patches.to(kind).float())


@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_int8_is_off_by_at_most_half_a_step(shift):
    wanted = features(shift=shift)
    found = there_and_back(codec("int8"), wanted)
    span = wanted.patches.amax((2, 3)) - wanted.patches.amin((2, 3))
    step = (span / 255)[..., None, None]
    rounding = 4 * torch.finfo(torch.float32).eps * wanted.patches.abs()
    assert ((found.patches - wanted.patches).abs() <= step / 2 + rounding).all()
    assert torch.equal(found.summary, wanted.summary.bfloat16().float())


def test_int8_keeps_channels_that_differ_in_size_and_those_that_are_constant():
    wanted = features()
    factors = torch.tensor([1e-6, 1.0, 1e6, 1.0, 1.0, 1.0])[:, None, None]
    patches = wanted.patches * factors
    patches[:, 4] = 3.25
    patches[:, 5] = 0.0
    found = there_and_back(codec("int8"), Features(wanted.summary, patches)).patches
    assert torch.equal(found[:, 4:], patches[:, 4:])
    relative = (found - patches).abs().amax((0, 2, 3)) / patches.abs().amax((0, 2, 3)).clamp(min=1e-30)
    assert (relative <= 1 / 255).all()


def test_int8_beats_bfloat16_where_channels_have_an_offset():
    wanted = features(shift=100.0)
    errors = {store: (there_and_back(codec(store), wanted).patches - wanted.patches).abs().mean() for store in STORES}
    assert errors["int8"] < errors["bfloat16"] / 10


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("rank", [None, 2])
def test_what_was_stored_once_is_stored_the_same_again(store, rank):
    """Computed and read features are equal because both have been through a record; the records are the truth."""
    projection = fit_projection([features().patches], rank) if rank else None
    coder = codec(store, projection, rank or D)
    records = coder.encode(features(key=1))
    assert torch.equal(coder.decode(records).patches, coder.decode(records.clone()).patches)
    whole, half = coder.decode(records), coder.decode(records[:2])
    torch.testing.assert_close(whole.patches[:2], half.patches, rtol=1e-6, atol=1e-6)
    assert whole.patches.shape == (4, D, H, W)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize(
    ("width", "channels", "grid"), [(1, 1, (1, 1)), (3, 5, (7, 7)), (8, 4, (2, 9)), (5, 1, (1, 3))]
)
def test_a_record_is_as_long_as_its_formula_says(store, width, channels, grid):
    layout = RowLayout(store, width, (channels, *grid))
    numbers = channels * grid[0] * grid[1]
    size = 2 * width + (numbers + 8 * channels if store == "int8" else 2 * numbers)
    assert layout.record_bytes == -(-size // 8) * 8
    assert all(field.start % field.dtype.itemsize == 0 for field in layout.fields.values())
    coder = Codec(layout, None, "a teacher")
    wanted = Features(torch.ones(2, width), torch.full((2, channels, *grid), 0.5))
    found = coder.decode(coder.encode(wanted))
    assert torch.equal(found.summary, wanted.summary) and torch.equal(found.patches, wanted.patches)


@pytest.mark.parametrize("store", STORES)
def test_a_layout_survives_json(store):
    layout = RowLayout(store, C, (D, H, W))
    assert RowLayout.from_json({"setting": {"store": store}, **layout.as_json()}) == layout


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["summary", "patches"])
def test_broken_features_are_refused(store, poison, where):
    wanted = features()
    getattr(wanted, where).view(-1)[3] = poison
    with pytest.raises(ValueError, match=f"a teacher gives features that are NaN, infinite or beyond {store}"):
        codec(store).encode(wanted)


def test_what_float16_cannot_hold_is_refused():
    wanted = features(scale=1e6)
    with pytest.raises(ValueError, match="beyond float16"):
        codec("float16").encode(wanted)
    codec("bfloat16").encode(wanted)


def test_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"gives patches \(6, 3, 4\); the cache holds \(6, 3, 5\)"):
        codec().encode(Features(torch.ones(2, C), torch.ones(2, D, 3, 4)))


def test_autocast_changes_nothing():
    projection = fit_projection([features().patches], 3)
    coder = codec("int8", projection, 3)
    records = coder.encode(features())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(coder.encode(features()), records)
        assert torch.equal(coder.decode(records).patches, coder.decode(records).patches)
        inside = coder.decode(records).patches
    assert torch.equal(inside, coder.decode(records).patches)


# Principal components, against numpy


def correlated(count=40, key=0):
    """Maps [count, D, H, W] whose channels depend on each other and lie far from zero."""
    generator = torch_generator("pca", key)
    mixing = torch.randn(D, D, generator=torch_generator("pca mixing")) * torch.tensor([5.0, 3, 1, 0.5, 0.2, 0.1])
    return torch.einsum("dk,bkhw->bdhw", mixing, torch.randn(count, D, H, W, generator=generator)) + 50


def numpy_pca(maps, rank):
    vectors = maps.double().movedim(1, -1).reshape(-1, D).numpy()
    centred = vectors - vectors.mean(0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    return vectors.mean(0), directions[:rank].T, (singular[:rank] ** 2).sum() / (singular**2).sum()


@pytest.mark.parametrize("rank", [1, 3, D])
def test_components_and_kept_variance_are_those_of_numpy(rank):
    maps = correlated()
    mean, directions, kept = numpy_pca(maps, rank)
    found = fit_projection(maps.split([7, 20, 13]), rank)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-5)
    assert found.kept_variance == pytest.approx(kept, rel=1e-5)
    # the same subspace, and the same axes but for their sign
    np.testing.assert_allclose(np.abs(found.components.double().numpy().T @ directions), np.eye(rank), atol=1e-4)
    np.testing.assert_allclose(found.components.T @ found.components, np.eye(rank), atol=1e-5)
    assert (found.components.gather(0, found.components.abs().argmax(0, keepdim=True)) > 0).all()


def test_what_is_lost_is_what_was_not_kept():
    maps = correlated()
    found = fit_projection([maps], 3)
    lost = (found.restore(found.project(maps)) - maps).square().sum()
    total = (maps - maps.mean((0, 2, 3), keepdim=True)).square().sum()
    assert float(lost / total) == pytest.approx(1 - found.kept_variance, rel=1e-3)


def test_all_components_lose_nothing():
    maps = correlated()
    found = fit_projection([maps], D)
    assert found.kept_variance == pytest.approx(1)
    torch.testing.assert_close(found.restore(found.project(maps)), maps, rtol=1e-5, atol=1e-4)


def test_batches_make_no_difference():
    maps = correlated()
    one, many = fit_projection([maps], 2), fit_projection(maps.split(1), 2)
    torch.testing.assert_close(one.components, many.components, rtol=1e-4, atol=1e-4)


def test_components_of_nothing_or_of_broken_maps():
    with pytest.raises(ValueError, match="at least one picture"):
        fit_projection([], 2)
    with pytest.raises(ValueError, match="NaN or infinite"):
        fit_projection([torch.full((1, D, H, W), float("nan"))], 2)


def test_constant_maps_have_components():
    found = fit_projection([torch.full((2, D, H, W), 2.0)], 2)
    assert isinstance(found, Projection)
    restored = found.restore(found.project(torch.full((1, D, H, W), 2.0)))
    torch.testing.assert_close(restored, torch.full((1, D, H, W), 2.0))
