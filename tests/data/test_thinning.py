import numpy as np
import pytest
from skimage.morphology import thin

from eyespot.data.labelled.thinning import thinned_maps


@pytest.mark.parametrize("share", [0.2, 0.5, 0.7, 0.9])
def test_each_map_is_thinned_as_scikit_image_thins_it(share):
    maps = np.random.default_rng(0).random((20, 23, 31)) < share
    found = thinned_maps(maps)
    assert found.dtype == bool
    for one, result in zip(maps, found, strict=True):
        assert np.array_equal(result, thin(one))


def test_bands_rings_and_full_maps():
    rows, columns = np.indices((30, 40))
    radius = np.hypot(rows - 15, columns - 20)
    maps = np.stack(
        [abs(rows - columns) < 4, (radius > 6) & (radius < 11), np.ones((30, 40), bool), np.zeros((30, 40), bool)]
    )
    before = maps.copy()
    found = thinned_maps(maps)
    assert np.array_equal(maps, before)
    assert all(np.array_equal(result, thin(one)) for one, result in zip(maps, found, strict=True))
    assert not found[3].any()
