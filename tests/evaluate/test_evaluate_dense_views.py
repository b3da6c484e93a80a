from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as transforms

from eyespot.data.sets import FilePictures, TensorPictures
from eyespot.data.views.resizing import resized_image
from eyespot.evaluate.probing.dense_views import (
    DepthViews,
    SegmentationViews,
    _distorted,
    _nearest,
    _recoloured,
    depth_view,
    segmentation_view,
    short_side_size,
)
from eyespot.randomness import numpy_generator

FILL = torch.tensor([0.4, 0.5, 0.6])
GEOMETRY = SegmentationViews(short_side=40, crop=32, distortion=0.0)


def smooth(height, width):
    """A picture whose red and green tell the place, and a mask of four quarters."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    picture = torch.stack([255 * x / width, 255 * y / height, torch.full_like(x, 100, dtype=torch.float32)])
    return picture.to(torch.uint8), ((x * 2 >= width) + 2 * (y * 2 >= height)).to(torch.uint8)


def test_sizes_by_the_shorter_side():
    assert short_side_size((480, 640), 512) == (512, 683)
    assert short_side_size((640, 480), 512) == (683, 512)
    assert short_side_size((300, 300), 512) == (512, 512)


def test_resizing_is_pillow_s():
    picture = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 30, 41), dtype=np.uint8))
    pillow = Image.fromarray(picture.permute(1, 2, 0).numpy()).resize((20, 17), Image.Resampling.BILINEAR)
    difference = resized_image(picture, (17, 20)).int() - torch.from_numpy(np.array(pillow)).permute(2, 0, 1).int()
    assert difference.abs().max() <= 1


def test_labels_are_resized_as_pillow_does():
    mask = torch.from_numpy(np.random.default_rng(0).integers(0, 9, (13, 17), dtype=np.uint8))
    pillow = np.array(Image.fromarray(mask.numpy()).resize((40, 29), Image.Resampling.NEAREST))
    assert np.array_equal(_nearest(mask, (29, 40), (0, 0), (29, 40)).numpy(), pillow)
    assert np.array_equal(_nearest(mask, (29, 40), (5, 30), (8, 16)).numpy(), pillow[5:13, 30:40])


@pytest.mark.parametrize("number", range(12))
def test_picture_and_mask_stay_together(number):
    picture, mask = smooth(60, 80)
    view, cut = segmentation_view(picture, mask, GEOMETRY, (32, 32), 255, FILL, "together", number)
    assert view.shape == (3, 32, 32) and cut.shape == (32, 32)
    assert (view.dtype, cut.dtype) == (torch.uint8, torch.uint8)
    inside = cut != 255
    wanted = (view[0] >= 128).int() + 2 * (view[1] >= 128).int()
    clear = inside & ((view[0].int() - 128).abs() > 8) & ((view[1].int() - 128).abs() > 8)
    assert torch.equal(cut[clear].int(), wanted[clear])


def test_masks_of_another_size_than_the_picture_fit_as_well():
    picture, mask = smooth(60, 80)
    small = segmentation_view(picture, mask, GEOMETRY, (32, 32), 255, FILL, 3)[1]
    large = segmentation_view(picture, mask[::2, ::2], GEOMETRY, (32, 32), 255, FILL, 3)[1]
    assert (small == large).float().mean() > 0.95


def test_padding_has_the_fill_colour_and_no_label():
    picture, mask = smooth(20, 20)
    views = replace(GEOMETRY, short_side=20, scale=(1.0, 1.0))
    view, cut = segmentation_view(picture, mask, views, (32, 24), 7, FILL, 0)
    assert (cut[20:] == 7).all() and (cut[:, 20:] == 7).all() and (cut[:20, :20] < 4).all()
    assert view[:, 25, 22].tolist() == [102, 128, 153]


def test_equal_keys_equal_views_other_keys_others():
    picture, mask = smooth(60, 80)
    views = SegmentationViews(short_side=40, crop=32)
    first, second, other = (segmentation_view(picture, mask, views, (32, 32), 255, FILL, "v", n)[0] for n in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_scales_and_mirroring_are_as_often_as_they_should_be():
    """A view that shows a vertical edge in the middle of the picture: its side tells the mirroring."""
    picture, mask = smooth(64, 64)
    flips = widths = 0
    for number in range(200):
        views = replace(GEOMETRY, short_side=64, scale=(0.5, 0.5))
        view, _ = segmentation_view(picture, mask, views, (64, 64), 255, FILL, number)
        flips += int(view[0, 0, 0] > view[0, 0, 31])
        widths += int((view[2, 0] == 100).sum())
    assert 70 < flips < 130
    assert widths == 200 * 32


def test_a_crop_of_one_class_is_drawn_again():
    picture, mask = torch.zeros(3, 100, 100, dtype=torch.uint8), torch.zeros(100, 100, dtype=torch.uint8)
    mask[:, 50:] = 1
    views = SegmentationViews(short_side=100, scale=(1, 1), crop=20, distortion=0.0)

    def share_of_mixed(config):
        found = [segmentation_view(picture, mask, config, (20, 20), 255, FILL, n)[1] for n in range(100)]
        return sum(0.25 < float(cut.float().mean()) < 0.75 for cut in found)

    assert share_of_mixed(replace(views, largest_share=1.0)) < 35
    assert share_of_mixed(views) > 60


def test_photometric_distortion_changes_each_property_within_its_range():
    views = SegmentationViews()
    grey = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    values = [float(_distorted(grey, views, numpy_generator("d", n)).float().mean()) for n in range(300)]
    assert min(values) >= (100 - 32) * 0.5 - 2 and max(values) <= (100 + 32) * 1.5 + 2
    assert 300 / 4 * 0.6 < sum(value == 100 for value in values) < 300 / 4 * 1.6  # neither brightness nor contrast
    still = replace(views, distortion=0.0)
    assert torch.equal(_distorted(grey, still, numpy_generator("d", 0)), grey)


PLAIN = DepthViews(rotate=0.0, flip=0.0, recolour=0.0)


def scene(height=48, width=64):
    picture, _ = smooth(height, width)
    return picture, 1 + picture[0].float() / 255 + picture[1].float() / 255


def test_depth_stays_with_its_pixel():
    picture, depth = scene()
    for number in range(10):
        view, metres = depth_view(
            picture, depth, replace(DepthViews(), rotate=0, recolour=0), (24, 40), None, FILL, number
        )
        assert view.shape == (3, 24, 40) and metres.shape == (24, 40)
        torch.testing.assert_close(metres, 1 + view[0].float() / 255 + view[1].float() / 255)


def test_a_rotation_turns_both_and_measures_nothing_in_the_corners():
    picture, depth = scene(200, 200)
    views = replace(PLAIN, rotate=1.0, rotation=2.5)
    view, metres = depth_view(picture, depth, views, (200, 200), None, FILL, 3)
    corners = (metres == 0).float().mean()
    assert 0 < corners < 0.05
    inner = slice(20, 180)
    seen = 1 + view[0].float() / 255 + view[1].float() / 255
    assert (metres - seen)[inner, inner].abs().max() < 0.05
    angles = [depth_view(picture, depth, views, (200, 200), None, FILL, n)[1].eq(0).float().mean() for n in range(20)]
    largest = transforms.rotate(depth[None], 2.5).eq(0).float().mean()
    assert max(angles) <= largest + 1e-3


def test_views_stay_inside_the_box():
    picture, depth = scene()
    depth[:5], depth[:, :6], depth[40:], depth[:, 50:] = 9, 9, 9, 9
    for number in range(10):
        _, metres = depth_view(picture, depth, PLAIN, (20, 30), (6, 5, 50, 40), FILL, number)
        assert metres.max() < 9


def test_small_pictures_are_padded_without_depth():
    picture, depth = scene(10, 12)
    view, metres = depth_view(picture, depth, PLAIN, (16, 16), None, FILL, 0)
    assert (metres[10:] == 0).all() and (metres[:, 12:] == 0).all()
    assert torch.equal(metres[:10, :12], depth) and view[:, 15, 15].tolist() == [102, 128, 153]


def test_depth_of_another_size_is_taken_to_the_picture():
    picture, depth = scene()
    _, metres = depth_view(picture, depth[::2, ::2], PLAIN, (48, 64), None, FILL, 0)
    assert (metres - depth).abs().max() < 0.05


def test_recolouring_by_hand():
    views = DepthViews(recolour=1.0, gamma=(0.95, 0.95), brightness=(1.2, 1.2), tint=(0.9, 0.9))
    found = _recoloured(torch.full((3, 2, 2), 100, dtype=torch.uint8), views, numpy_generator(0))
    assert found.unique().tolist() == [round(100**0.95 * 1.2 * 0.9)]
    bright = _recoloured(
        torch.full((3, 2, 2), 250, dtype=torch.uint8), replace(views, gamma=(1.1, 1.1)), numpy_generator(0)
    )
    assert bright.unique().tolist() == [255]


def test_original_pictures_are_whole_and_at_their_own_size(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (10, 14, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    wanted = torch.from_numpy(pixels).permute(2, 0, 1)
    for pictures in (
        FilePictures([tmp_path / "a.png"]),
        FilePictures([tmp_path / "a.png"], crop=True),
        TensorPictures(wanted[None]),
        TensorPictures(wanted[None] / 255),
    ):
        assert torch.equal(pictures.original(0), wanted) and pictures.original(0).dtype == torch.uint8
