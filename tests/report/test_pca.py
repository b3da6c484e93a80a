import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from eyespot.report.exhibits.pca import pca_pictures, pca_scores


def features(batch=3, width=12, rows=5, columns=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scale = torch.linspace(4, 0.2, width).view(1, width, 1, 1)
    return torch.randn(batch, width, rows, columns, generator=generator) * scale + 3


def as_sample(maps):
    return maps.permute(0, 2, 3, 1).flatten(0, 2).double().numpy()


def test_scores_are_those_of_an_independent_whitened_pca():
    patches = features()
    ours = as_sample(pca_scores(patches))
    theirs = PCA(3, whiten=True, svd_solver="full").fit_transform(as_sample(patches))
    correlation = np.corrcoef(ours.T, theirs.T)[:3, 3:]
    np.testing.assert_allclose(np.abs(correlation), np.eye(3), atol=1e-5)
    np.testing.assert_allclose(ours.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(ours.std(0), 1, atol=1e-5)


def test_components_come_by_falling_variance_with_their_largest_loading_positive():
    generator = torch.Generator().manual_seed(1)
    patches = torch.randn(2, 5, 16, 16, generator=generator) * torch.tensor([0.1, 3.0, 0.2, 9.0, 1.0]).view(1, 5, 1, 1)
    scores = as_sample(pca_scores(patches))
    channels = as_sample(patches)
    for component, channel in enumerate((3, 1, 4)):
        assert np.corrcoef(scores[:, component], channels[:, channel])[0, 1] > 0.98


def test_the_same_features_give_the_same_picture_whatever_the_random_state():
    torch.manual_seed(0)
    first = pca_pictures(features(), 32)
    torch.manual_seed(1)
    assert torch.equal(first, pca_pictures(features(), 32))


def test_a_picture_shows_every_patch_as_one_flat_cell():
    picture = pca_pictures(features(batch=2, rows=4, columns=8), (12, 24))
    assert picture.shape == (2, 3, 12, 24)
    assert picture.dtype == torch.uint8
    cells = picture.unfold(2, 3, 3).unfold(3, 3, 3).flatten(4)
    assert torch.equal(cells.amin(-1), cells.amax(-1))
    assert picture.min() == 0
    assert picture.max() == 255


def test_constant_features_and_missing_components_are_grey():
    assert (pca_pictures(torch.full((2, 6, 3, 3), 7.3), 6) == 128).all()
    two = pca_pictures(features(width=2), 20)
    assert (two[:, 2] == 128).all()
    assert two[:, 0].float().std() > 30


def test_one_outlier_does_not_set_the_contrast():
    patches = features(batch=1, rows=16, columns=16)
    patches[0, :, 0, 0] += 1000 * patches[0, :, 0, 0].sign()
    assert pca_pictures(patches, 16).float().std() > 40


def test_per_picture_pca_equals_one_call_per_picture():
    patches = features()
    alone = torch.cat([pca_pictures(patches[index : index + 1], 20) for index in range(3)])
    assert torch.equal(pca_pictures(patches, 20, joint=False), alone)
    assert not torch.equal(pca_pictures(patches, 20), alone)


@pytest.mark.parametrize("joint", [True, False])
def test_aligned_colours_of_the_same_features_in_another_basis_are_equal(joint):
    patches = features(rows=8, columns=8)
    basis = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(5)))[0]
    turned = torch.einsum("ij,bjhw->bihw", basis, patches)
    reference = pca_pictures(patches, 8, joint)
    aligned = pca_pictures(turned, 8, joint, align_to=patches)
    assert (aligned.int() - reference.int()).abs().max() <= 1


def test_alignment_works_across_grids():
    patches = torch.nn.functional.interpolate(features(rows=3, columns=3), size=(12, 12), mode="bicubic")
    coarse = torch.nn.functional.avg_pool2d(patches, 2)
    aligned = pca_pictures(-coarse, 12, align_to=patches).float()
    assert (aligned - pca_pictures(patches, 12).float()).abs().mean() < 25


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(bad):
    patches = features()
    patches[1, 2, 3, 0] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        pca_pictures(patches, 8)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\[B, D, h, w\]"):
        pca_scores(torch.zeros(3, 4, 5))
    with pytest.raises(ValueError, match="align_to holds 2 pictures"):
        pca_pictures(features(), 8, align_to=features(batch=2))


def test_a_basis_gives_equal_colours_to_equal_features():
    coarse = torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(1))
    fine = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
    wanted = pca_pictures(coarse, 16)
    assert torch.equal(pca_pictures(fine, 16, basis=coarse), wanted)
    assert torch.equal(
        pca_pictures(coarse[:1], 16, basis=coarse[:1], align_to=coarse[:1]), pca_pictures(coarse[:1], 16)
    )
    part = fine.clone()
    part[:, :, 4:] = 5.0  # other features elsewhere move no colour
    assert torch.equal(pca_pictures(part, 16, basis=coarse)[:, :, :8], wanted[:, :, :8])


def test_a_basis_and_a_guide_go_together():
    coarse, guide = (torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    assert torch.equal(pca_pictures(coarse, 16, align_to=guide, basis=coarse), pca_pictures(coarse, 16, align_to=guide))


def test_a_basis_of_other_pictures_is_refused():
    with pytest.raises(ValueError, match="basis holds 1 pictures, patches 2"):
        pca_pictures(torch.randn(2, 3, 4, 4), 8, basis=torch.randn(1, 3, 4, 4))
