import pytest
import torch
import torch.nn.functional as F

from eyespot.evaluate.probing.sliding import sliding_map, window_starts


@pytest.mark.parametrize(
    ("length", "window", "stride", "wanted"),
    [(512, 512, 341, [0]), (683, 512, 341, [0, 171]), (1024, 512, 341, [0, 341, 512]), (8, 4, 2, [0, 2, 4])],
)
def test_windows_cover_the_side_and_end_at_the_border(length, window, stride, wanted):
    assert window_starts(length, window, stride) == wanted


def test_windows_that_leave_gaps_or_do_not_fit_are_refused():
    for window, stride in ((9, 3), (4, 5), (4, 0)):
        with pytest.raises(ValueError, match="do not cover"):
            window_starts(8, window, stride)


BLACK = torch.zeros(3)


def test_what_is_seen_pixel_by_pixel_comes_back_whole():
    picture = torch.rand(3, 21, 33)
    torch.testing.assert_close(sliding_map(lambda windows: windows, picture, (8, 16), (5, 11), BLACK), picture)


def test_overlaps_are_averaged():
    """Against an independent sum over windows: each window is filled with its own mean."""
    picture = torch.rand(3, 12, 10)
    found = sliding_map(
        lambda w: w.mean((2, 3), keepdim=True)[:, :1].expand(-1, 1, 6, 6), picture, (6, 6), (3, 4), BLACK
    )
    total, count = torch.zeros(12, 10), torch.zeros(12, 10)
    for top in (0, 3, 6):
        for left in (0, 4):
            total[top : top + 6, left : left + 6] += picture[0, top : top + 6, left : left + 6].mean()
            count[top : top + 6, left : left + 6] += 1
    torch.testing.assert_close(found[0], total / count)


def test_coarse_outputs_are_upsampled_to_the_window():
    picture = torch.rand(3, 8, 8)
    found = sliding_map(lambda w: F.avg_pool2d(w, 4), picture, (8, 8), (8, 8), BLACK)
    torch.testing.assert_close(found, F.interpolate(F.avg_pool2d(picture[None], 4), size=(8, 8), mode="bilinear")[0])


def test_a_small_picture_is_framed_and_cut_out_again():
    seen = []

    def predict(windows):
        seen.append(windows)
        return windows

    picture, fill = torch.rand(3, 5, 9), torch.tensor([0.1, 0.2, 0.3])
    torch.testing.assert_close(sliding_map(predict, picture, (8, 8), (4, 4), fill), picture)
    assert seen[0].shape == (2, 3, 8, 8)
    torch.testing.assert_close(seen[0][:, :, 0], fill[None, :, None].expand(2, 3, 8))
    torch.testing.assert_close(seen[0][0, :, 1:6], picture[:, :, :8])


def test_many_windows_go_through_in_parts():
    sizes = []

    def predict(windows):
        sizes.append(len(windows))
        return windows

    sliding_map(predict, torch.rand(3, 40, 40), (8, 8), (8, 8), BLACK)
    assert sizes == [16, 9]
