import dataclasses

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from eyespot.data.labelled.colours import Distortion, distorted, draw_distortion
from eyespot.data.labelled.points import mirrored_types, point_maps
from eyespot.data.labelled.samples import MultiTaskSample
from eyespot.data.views import paired
from eyespot.data.views.config import PairedViewConfig
from eyespot.data.views.paired import FILL, centred, flipped, largest_share, paired_view
from eyespot.dense_tasks import IGNORE, dense_task

TASKS = {
    "segmentation": dense_task("classes", 4),
    "parts": dense_task("classes", 7),
    "saliency": dense_task("saliency"),
    "boundary": dense_task("boundary"),
    "normals": dense_task("normals"),
    "depth": dense_task("depth"),
    "keypoints": dense_task("keypoints", 3, names=("nose", "left_eye", "right_eye")),
}


def sample(height=40, width=60, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def integers(high):
        return torch.randint(0, high, (height, width), generator=generator, dtype=torch.uint8)

    normals = torch.nn.functional.normalize(torch.randn(3, height, width, generator=generator), dim=0)
    points = point_maps([(0, 5, 6), (1, 20, 10), (2, 40, 30)], 3, (height, width))
    labels = {
        "segmentation": integers(4),
        "parts": integers(7),
        "saliency": integers(2),
        "boundary": integers(2),
        "normals": normals,
        "depth": 1 + torch.rand(height, width, generator=generator),
        "keypoints": points,
    }
    image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    return MultiTaskSample(image, labels)


def only(size, **changes):
    return dataclasses.replace(PairedViewConfig.plain(size), **changes)


def assert_equal(one, other):
    assert torch.equal(one.image, other.image) and one.maps.keys() == other.maps.keys()
    for name, label in one.maps.items():
        assert torch.equal(label, other.maps[name]), name


def test_a_view_is_a_pure_function_of_its_keys():
    config, picture = PairedViewConfig(size=(32, 48)), sample()
    kept = MultiTaskSample(picture.image.clone(), {name: label.clone() for name, label in picture.maps.items()})
    one, again = (paired_view(picture, TASKS, config, 3, 0, 7, 1) for _ in range(2))
    assert_equal(one, again)
    assert_equal(picture, kept)  # what was read is not changed
    for keys in ((4, 0, 7, 1), (3, 0, 8, 1), (3, 0, 7, 2)):
        assert not torch.equal(paired_view(picture, TASKS, config, *keys).image, one.image)


def test_a_view_has_the_types_and_the_size_of_the_contract():
    view = paired_view(sample(), TASKS, PairedViewConfig(size=(32, 48)), 0)
    assert view.image.shape == (3, 32, 48) and view.image.dtype == torch.uint8 and view.size == (32, 48)
    shapes = {name: (label.dtype, tuple(label.shape)) for name, label in view.maps.items()}
    bytes_, floats = (torch.uint8, (32, 48)), torch.float32
    assert shapes == {
        **dict.fromkeys(("segmentation", "parts", "saliency", "boundary"), bytes_),
        "normals": (floats, (3, 32, 48)),
        "depth": (floats, (32, 48)),
        "keypoints": (floats, (3, 32, 48)),
    }
    assert all(label.is_contiguous() for label in (*view.maps.values(), view.image))


def test_the_plain_view_of_a_picture_of_that_size_is_the_picture():
    picture = sample()
    assert_equal(paired_view(picture, TASKS, PairedViewConfig.plain((40, 60)), 0), picture)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_depth_is_divided_by_the_scale(scale):
    picture = sample()
    size = (int(40 * scale), int(60 * scale))
    view = paired_view(picture, TASKS, only(size, scale=(scale, scale)), 0)
    rows, columns = (((torch.arange(n) + 0.5) / scale).long() for n in size)
    for name in ("segmentation", "parts", "saliency", "boundary", "normals"):
        assert torch.equal(view.maps[name], picture.maps[name][..., rows, :][..., columns]), name
    expected = picture.maps["depth"][rows][:, columns] * (2 if scale == 0.5 else 0.5)
    assert torch.equal(view.maps["depth"], expected)


def test_every_map_is_cut_once(monkeypatch):
    """Also the one of classes, which is looked at to choose the crop."""
    cut, nearest = [], paired._Window.nearest
    monkeypatch.setattr(
        paired._Window, "nearest", lambda window, label: cut.append(id(label)) or nearest(window, label)
    )
    picture = sample()
    paired_view(picture, TASKS, PairedViewConfig(size=(16, 24), most_of_one_class=0.99, scale=(1.0, 2.0)), 0)
    assert sorted(cut) == sorted(map(id, picture.maps.values()))


def test_scales_are_uniform_in_their_range():
    flat = MultiTaskSample(torch.zeros(3, 32, 32, dtype=torch.uint8), {"depth": torch.ones(32, 32)})
    config = PairedViewConfig(size=(16, 16))
    depths = [float(paired_view(flat, TASKS, config, key).maps["depth"].max()) for key in range(300)]
    scales = 1 / torch.tensor(depths)
    assert 0.5 <= scales.min() < 0.53 and 1.97 < scales.max() <= 2
    assert abs(float(scales.mean()) - 1.25) < 0.08


def test_pictures_and_labels_stay_in_register():
    """Coordinates as colours, and the same coordinates as depth and as normals."""
    rows, columns = torch.meshgrid(torch.arange(80), torch.arange(100), indexing="ij")
    image = torch.stack([2 * rows, 2 * columns, 0 * rows]).to(torch.uint8)
    labels = {"depth": (1 + columns).float(), "normals": torch.stack([rows + 1, columns + 1, rows]).float()}
    picture = MultiTaskSample(image, labels)
    config = PairedViewConfig(size=(64, 72), most_of_one_class=1, colours=False)
    inside = 0
    for key in range(40):
        view = paired_view(picture, TASKS, config, key)
        row, column = view.maps["normals"][0].abs() - 1, view.maps["normals"][1] - 1
        known = view.maps["depth"] > 0
        # Bilinear colours are between pixels; antialiased ones average over two; at the border they are one-sided.
        inner = known & (row > 1) & (row < 78) & (column > 1) & (column < 98)
        assert (view.image[0][inner] / 2 - row[inner]).abs().max() <= 1.01
        assert (view.image[1][inner] / 2 - column[inner]).abs().max() <= 1.01
        scale = (column + 1)[inner] / view.maps["depth"][inner]
        torch.testing.assert_close(scale, scale[:1].expand_as(scale), rtol=1e-5, atol=0)
        inside += int(inner.sum())
    assert inside > 40 * 1000


def test_a_flip_negates_x_swaps_sides_and_undoes_itself():
    picture = sample()
    always = paired_view(picture, TASKS, only((40, 60), flip=1.0), 0)
    assert torch.equal(always.image, picture.image.flip(-1))
    for name in ("segmentation", "parts", "saliency", "boundary", "depth"):
        assert torch.equal(always.maps[name], picture.maps[name].flip(-1)), name
    x, y, z = picture.maps["normals"].flip(-1)
    assert torch.equal(always.maps["normals"], torch.stack([-x, y, z]))
    nose, left, right = picture.maps["keypoints"].flip(-1)
    assert torch.equal(always.maps["keypoints"], torch.stack([nose, right, left]))
    for name, label in picture.maps.items():
        assert torch.equal(flipped(flipped(label, TASKS[name]), TASKS[name]), label)


def test_half_of_the_views_are_flipped():
    picture, config = sample(), only((40, 60), flip=0.5)
    straight = sum(torch.equal(paired_view(picture, TASKS, config, key).image, picture.image) for key in range(200))
    assert 75 < straight < 125


def test_padded_pixels_are_unlabelled_in_every_kind():
    view = centred(sample(20, 30), (31, 40))
    around = torch.ones(31, 40, dtype=torch.bool)
    around[5:25, 5:35] = False
    assert torch.equal(view.image[:, around], torch.tensor(FILL, dtype=torch.uint8)[:, None].expand(3, 31 * 40 - 600))
    for name in ("segmentation", "parts", "saliency", "boundary"):
        assert bool((view.maps[name][around] == IGNORE).all()), name
    for name in ("normals", "depth", "keypoints"):
        assert not view.maps[name][..., around].any(), name
    inner = MultiTaskSample(view.image[:, ~around], {name: label[..., ~around] for name, label in view.maps.items()})
    whole = sample(20, 30)
    assert torch.equal(inner.image, whole.image.flatten(1))
    assert all(torch.equal(inner.maps[name], label.flatten(-2)) for name, label in whole.maps.items())


def test_the_fill_is_imagenets_mean():
    assert tuple(round(255 * mean) for mean in (0.485, 0.456, 0.406)) == FILL


def test_small_pictures_are_scaled_first_and_then_padded():
    view = paired_view(sample(20, 30), TASKS, only((64, 64), scale=(0.5, 0.5)), 0)
    known = view.maps["depth"] > 0
    assert int(known.sum()) == 10 * 15 and known[27:37, 24:39].all()


def test_a_picture_too_large_for_an_evaluation_says_what_to_do():
    with pytest.raises(ValueError, match=r"20x30 does not fit into 32x24 .*at least 32x30.*\?height=32&width=24"):
        centred(sample(20, 30), (32, 24))


def share_of(view):
    return largest_share(view.maps["segmentation"])


def test_no_class_takes_more_than_its_share_if_another_crop_can_be_had():
    classes = torch.zeros(60, 80, dtype=torch.uint8)
    classes[:, 60:] = 1
    classes[:10] = IGNORE
    picture = MultiTaskSample(torch.zeros(3, 60, 80, dtype=torch.uint8), {"segmentation": classes})
    free = [share_of(paired_view(picture, TASKS, only((20, 20)), key)) for key in range(200)]
    held = [share_of(paired_view(picture, TASKS, only((20, 20), most_of_one_class=0.75), key)) for key in range(200)]
    assert sum(share > 0.75 for share in free) > 120
    good = 1 - sum(share > 0.75 for share in free) / 200  # the share of good crops: 11 draws miss with (1 - good)^11
    assert sum(share > 0.75 for share in held) <= 200 * ((1 - good) ** 11 + 0.05)


def test_crops_that_can_do_no_better_are_taken_as_they_are():
    classes = torch.full((60, 80), 2, dtype=torch.uint8)
    picture = MultiTaskSample(torch.zeros(3, 60, 80, dtype=torch.uint8), {"segmentation": classes})
    assert share_of(paired_view(picture, TASKS, only((20, 20), most_of_one_class=0.75), 0)) == 1
    unlabelled = MultiTaskSample(picture.image, {"segmentation": torch.full_like(classes, IGNORE)})
    assert share_of(paired_view(unlabelled, TASKS, only((20, 20), most_of_one_class=0.75), 0)) == 1


def test_the_share_is_of_labelled_pixels():
    classes = torch.tensor([[0, 0, 1, IGNORE], [0, 2, IGNORE, IGNORE]], dtype=torch.uint8)
    assert largest_share(classes) == pytest.approx(3 / 5)


def test_a_crop_without_a_person_counts_for_no_parts():
    parts = torch.zeros(40, 40, dtype=torch.uint8)
    parts[:12, :12] = 3
    picture = MultiTaskSample(torch.zeros(3, 40, 40, dtype=torch.uint8), {"parts": parts})
    views = [paired_view(picture, TASKS, only((20, 20)), key).maps["parts"] for key in range(40)]
    without = [view for view in views if not (view == 3).any()]
    assert 10 < len(without) < 40
    assert all(bool((view == IGNORE).all()) for view in without)
    assert all(set(view.unique().tolist()) == {0, 3} for view in views if (view == 3).any())


def test_points_survive_shrinking():
    picture = MultiTaskSample(
        torch.zeros(3, 41, 61, dtype=torch.uint8), {"keypoints": point_maps([(1, 31, 17)], 3, (41, 61))}
    )
    for scale in (0.5, 0.63, 1.0, 1.7):
        size = (int(41 * scale), int(61 * scale))
        seen = paired_view(picture, TASKS, only(size, scale=(scale, scale)), 0).maps["keypoints"]
        assert seen.amax((1, 2)).tolist() == [0, 1, 0]
        peak = (seen[1] == 1).nonzero().float().mean(0) + 0.5
        assert (peak / scale - torch.tensor([17.5, 31.5])).abs().max() <= 1


def test_point_maps_are_bumps_with_their_top_at_the_point():
    maps = point_maps([(0, 10.7, 5.2), (0, 30, 5), (2, -1, 3), (2, 100, 3)], 3, (50, 100))
    assert maps[0, 5, 10] == 1 and maps[0, 5, 30] == 1 and not maps[1:].any()
    assert maps[0, 5, 12] == pytest.approx(np.exp(-0.5)) and maps[0, 7, 10] == pytest.approx(np.exp(-0.5))  # sigma 2


def test_only_names_with_a_side_change_it():
    assert mirrored_types(("nose", "left_eye", "right_eye", "left_only")) == [0, 2, 1, 3]
    assert mirrored_types(("ground", "wall")) is None and mirrored_types(()) is None


def colours(*values):
    return torch.tensor(values, dtype=torch.uint8).T[:, None]


def test_distortions_of_brightness_and_contrast_cut_off_and_round_down():
    image = colours([100, 250, 3])
    assert distorted(image, Distortion()).flatten().tolist() == [100, 250, 3]
    assert distorted(image, Distortion(brightness=10.6)).flatten().tolist() == [110, 255, 13]
    assert distorted(image, Distortion(brightness=-10)).flatten().tolist() == [90, 240, 0]
    assert distorted(image, Distortion(contrast=0.5)).flatten().tolist() == [50, 125, 1]
    assert distorted(image, Distortion(contrast=1.5, brightness=8)).flatten().tolist() == [162, 255, 16]


def test_distortions_of_saturation_and_hue():
    image = colours([200, 100, 100], [80, 80, 80])
    greyer = distorted(image, Distortion(saturation=0.5))[:, 0].T.int().tolist()
    assert greyer[1] == [80, 80, 80] and abs(greyer[0][0] - 200) <= 1 and abs(greyer[0][1] - 150) <= 2
    turned = distorted(image, Distortion(hue=1 / 3))[:, 0].T.int().tolist()
    assert turned[1] == [80, 80, 80]
    assert all(abs(one - other) <= 3 for one, other in zip(turned[0], [100, 200, 100], strict=True))


def test_contrast_comes_before_or_after_saturation():
    image = colours([200, 100, 100])
    change = {"contrast": 1.5, "saturation": 0.5}
    before, after = (distorted(image, Distortion(contrast_first=first, **change)) for first in (True, False))
    # First: 255 150 150 with saturation .41, halved: 255 203 203. Last: 200 150 150, times 1.5.
    assert (before.flatten().int() - torch.tensor([255, 203, 203])).abs().max() <= 2
    assert (after.flatten().int() - torch.tensor([255, 225, 225])).abs().max() <= 3


def test_distortions_are_drawn_as_published():
    drawn = [draw_distortion(0, key) for key in range(1000)]
    assert draw_distortion(0, 5) == drawn[5]
    for values, nothing, low, high in (
        ([each.brightness for each in drawn], 0, -32, 32),
        ([each.contrast for each in drawn], 1, 0.5, 1.5),
        ([each.saturation for each in drawn], 1, 0.5, 1.5),
        ([each.hue for each in drawn], 0, -0.1, 0.1),
    ):
        happened = [value for value in values if value != nothing]
        assert 430 < len(happened) < 570
        width = high - low
        assert low <= min(happened) < low + 0.03 * width and high - 0.03 * width < max(happened) <= high
        assert abs(float(np.mean(happened)) - (low + high) / 2) < 0.06 * width
    assert 430 < sum(each.contrast_first for each in drawn) < 570


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": (0, 4)}, "greater than or equal to 1"),
        ({"size": (4, 4), "scale": (2.0, 0.5)}, "0 < smallest <= largest"),
        ({"size": (4, 4), "flip": 2}, "less than or equal to 1"),
        ({"size": (4, 4), "jitter": 1}, "jitter"),
    ],
)
def test_wrong_settings_say_what_would_be_right(wrong, message):
    with pytest.raises(ValidationError, match=message):
        PairedViewConfig(**wrong)
