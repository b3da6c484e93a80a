import pytest
import torch
from report_toys import Blocks

from eyespot.evaluate.extraction import FeatureBank
from eyespot.report import Gallery, pca_pictures
from eyespot.report.exhibits.seen import Seen, sizes_around


@pytest.fixture
def pictures():
    return torch.rand(3, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def figures(seen, **encoders):
    gallery = Gallery([seen])
    for label, encoder in encoders.items():
        gallery.add(label, FeatureBank(encoder))
    return gallery.figures()


def test_pca_sizes_and_norms_each_have_a_grid(pictures):
    free, fixed = Blocks(8), Blocks(8, (16, 16))
    pca, sizes, norms = figures(Seen(pictures, 32, (16, 64)), fixed=fixed, free=free)
    assert list(pca.columns) == list(norms.columns) == ["picture", "fixed", "free"]
    assert list(sizes.columns) == ["picture", "free at 16 px", "free at 32 px", "free at 64 px"]
    assert free.seen == [(32, 48), (16, 24), (64, 96)] and fixed.seen == [(16, 16)]
    assert "those of free" in pca.caption
    for grid in (pca, sizes, norms):
        assert all(column.shape == (3, 3, 32, 48) and column.dtype == torch.uint8 for column in grid.columns.values())


def test_without_encoders_of_free_size_there_is_no_grid_of_sizes(pictures):
    assert len(figures(Seen(pictures, 32, (16, 64)), fixed=Blocks(8, (16, 16)))) == 2


def test_the_guide_can_be_chosen_and_keeps_its_own_colours(pictures):
    free, other = Blocks(8), Blocks(16)
    pca = figures(Seen(pictures, align_to="a"), a=free, b=other)[0]
    assert torch.equal(pca.columns["a"], pca_pictures(free.eval()(pictures).patches, (32, 48)))


def test_one_pca_spans_all_sizes(pictures):
    flat = pictures.mean((2, 3), keepdim=True).expand(-1, -1, 32, 32)
    sizes = figures(Seen(flat, 32, (16, 64)), free=Blocks(8))[1]
    one, *others = [column for name, column in sizes.columns.items() if name != "picture"]
    assert all(torch.equal(one, other) for other in others)  # the features are the same whatever the size


def test_an_outlier_token_is_counted(pictures):
    class Outlying(Blocks):
        def _encode(self, images):
            features = super()._encode(torch.ones_like(images))
            features.patches[0, :, 1, 2] *= 50
            return features

    norms = figures(Seen(pictures, 32), outlying=Outlying(8))[-1]
    assert norms.notes["outlying"] == ["max 50.0×, 1 outlier", "max 1.0×", "max 1.0×"]
    assert len(norms.columns["outlying"][0].flatten(1).unique(dim=1).T) == 2


def test_large_photographs_come_to_the_size_of_the_page():
    pca, _, norms = figures(Seen(torch.rand(1, 3, 400, 600), 32, (16,)), free=Blocks(8))
    assert {column.shape for column in (pca.columns["free"], norms.columns["free"])} == {(1, 3, 224, 336)}


@pytest.mark.parametrize(("size", "others"), [(224, (112, 448)), (256, (128, 512)), (320, (160,))])
def test_sizes_around_a_size_do_not_grow_without_end(size, others):
    assert sizes_around(size) == others


def test_tokens_of_length_zero_are_said_to_be_so(pictures):
    norms = figures(Seen(torch.zeros_like(pictures), 32), dark=Blocks(8))[-1]
    assert norms.notes["dark"] == ["median 0"] * 3
