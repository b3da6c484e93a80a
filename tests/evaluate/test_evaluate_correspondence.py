from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from eyespot.data.labelled.geometry import back_project, covisible_points, pixel_centres
from eyespot.data.sets import MatchingData, PointPair, TensorPictures
from eyespot.evaluate import FeatureBank
from eyespot.evaluate.protocols import correspondence
from eyespot.evaluate.protocols.correspondence import correct_points, match, pck
from eyespot.features import Features


def place_code(height, width):
    """A map whose vector tells its place: two angles, each as a point on a circle."""
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    return torch.stack([x.cos(), x.sin(), y.cos(), y.sin()])


def share(found, truth, reach, alpha=0.1):
    return pck(correct_points(found, truth, reach, alpha), [""] * len(truth))["points"]


def test_pck_by_hand():
    truth = [torch.zeros(2, 2), torch.zeros(1, 2), torch.zeros(0, 2)]
    found = [torch.tensor([[10.0, 0], [0, 10.1]]), torch.tensor([[6.0, 8.0]]), torch.zeros(0, 2)]
    correct = correct_points(found, truth, reach=[100, 100, 100], alpha=0.1)
    averages = pck(correct, ["", "", ""])
    assert averages["points"] == pytest.approx(2 / 3)
    assert averages["images"] == pytest.approx((0.5 + 1) / 2)
    assert averages["categories"] is None
    with pytest.raises(ValueError, match="no key points"):
        pck([torch.zeros(0)], [""])


def test_pck_over_categories_by_hand():
    """Cats: 3 of 4 points in two pairs; dogs: 0 of 1."""
    correct = [torch.tensor([1.0, 1, 0]), torch.tensor([1.0]), torch.tensor([0.0]), torch.zeros(0)]
    averages = pck(correct, ["cat", "cat", "dog", "cow"])
    assert averages["categories"] == pytest.approx((3 / 4 + 0) / 2)
    assert averages["images"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert averages["points"] == pytest.approx(3 / 5)


def test_the_reach_is_each_pair_s_own():
    """An error of 6 px is near for a box of 60 px and far for one of 59."""
    truth = [torch.zeros(1, 2)] * 2
    correct = correct_points([torch.tensor([[6.0, 0]])] * 2, truth, reach=[60, 59], alpha=0.1)
    assert [pair.tolist() for pair in correct] == [[1], [0]]


def test_matching_equals_brute_force():
    """On grids as fine as the search, key points at patch centres: the most similar patch, one by one."""
    generator = torch.Generator().manual_seed(3)
    source, target = torch.randn(16, 6, 8, generator=generator), torch.randn(16, 5, 7, generator=generator)
    points = torch.tensor([[x + 0.5, y + 0.5] for y in range(6) for x in range(8)]) * 10
    found = match(source, target, points, (60, 80), (100, 140), cells=1)
    for number, (y, x) in enumerate((y, x) for y in range(6) for x in range(8)):
        best, place = -2.0, None
        for row in range(5):
            for column in range(7):
                one, other = source[:, y, x], target[:, row, column]
                similarity = float(one @ other / one.norm() / other.norm())
                if similarity > best:
                    best, place = similarity, [(column + 0.5) * 20, (row + 0.5) * 20]
        assert found[number].tolist() == pytest.approx(place)


@pytest.mark.parametrize("grids", [((12, 16), (12, 16)), ((6, 8), (24, 32)), ((24, 32), (6, 8))])
def test_features_that_tell_the_place_find_it(grids):
    size = (96, 128)
    points = pixel_centres(96, 128)[::97].float()
    points = points[((points > 10) & (points < torch.tensor([118, 86]))).all(1)]
    found = match(place_code(*grids[0]), place_code(*grids[1]), points, size, size)
    assert (found - points).norm(dim=1).max() < 4.5


def test_pictures_of_two_sizes_and_their_own_reach():
    """The second picture is twice as large; the pair's reach sets what counts as near."""
    here, there = (48, 64), (96, 128)
    points = torch.tensor([[20.0, 16.0], [40.0, 30.0]])
    found = match(place_code(12, 16), place_code(12, 16), points, here, there)
    assert (found - 2 * points).norm(dim=1).max() < 3
    errors = (found - 2 * points).norm(dim=1)
    assert share([found], [2 * points], [10 * float(errors.max()) + 1e-3]) == 1.0
    assert share([found], [2 * points + 50], [128]) == 0.0


def test_random_features_find_nothing():
    generator = torch.Generator().manual_seed(0)
    points = pixel_centres(64, 64)[::13].float()
    maps = torch.randn(2, 32, 8, 8, generator=generator)
    assert share([match(maps[0], maps[1], points, (64, 64), (64, 64))], [points], [64]) < 0.15


def test_scale_of_features_does_not_matter():
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(2, 8, 6, 6, generator=generator)
    points = torch.rand(20, 2, generator=generator) * 60
    assert torch.equal(
        match(maps[0], maps[1], points, (60, 60), (60, 60)),
        match(1e3 * maps[0], 1e-3 * maps[1], points, (60, 60), (60, 60)),
    )


def test_task_on_shifted_pictures(colours):
    """The second picture is the first, moved by one cell to the right; features are all pixels of a cell."""
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(2)) - 0.5
    colours._encode = lambda pictures: Features(pictures.mean((2, 3)), F.pixel_unshuffle(pictures - 0.5, 8))
    points = (pixel_centres(8, 7) * 8).float()
    moved = points + torch.tensor([8.0, 0])
    pairs = [PointPair(i, i, points, moved, (64, 64), (64, 64), reach=64) for i in range(3)]
    data = MatchingData(TensorPictures(images + 0.5), TensorPictures(images.roll(8, 3) + 0.5), pairs)
    found = correspondence.run(FeatureBank(colours, size=64), data)
    assert found == {"PCK@0.1": 1.0, "PCK@0.05": 1.0, "PCK@0.1/image": 1.0, "PCK@0.1/category": None}
    grouped = MatchingData(data.sources, data.targets, [replace(pair, group="cat") for pair in pairs])
    found = correspondence.run(FeatureBank(colours, size=64), grouped, alpha=0.01)
    assert found["PCK@0.1/category"] == 1.0 and found["PCK@0.01"] <= 1.0
    with pytest.raises(ValueError, match="alpha"):
        correspondence.run(FeatureBank(colours, size=64), data, alpha=0)


INTRINSICS = torch.tensor([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]], dtype=torch.float64)


def pose(x=0.0, z=0.0):
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[0, 3], matrix[2, 3] = x, z
    return matrix


def test_back_projection_of_a_plane():
    points = back_project(torch.full((48, 64), 2.0), INTRINSICS)
    assert (points[:, 2] == 2).all()
    torch.testing.assert_close(
        points[0], torch.tensor([(0.5 - 32) * 2 / 50, (0.5 - 24) * 2 / 50, 2], dtype=torch.float64)
    )


def test_a_plane_seen_by_a_camera_moved_sideways():
    wall = torch.full((48, 64), 2.0)
    here, there = covisible_points(wall, wall, INTRINSICS, pose(), pose(x=0.4))
    torch.testing.assert_close(there, here - torch.tensor([0.4 * 50 / 2, 0], dtype=torch.float64))
    assert len(here) == 48 * 54  # the ten leftmost columns leave the picture


def test_a_plane_seen_from_nearer():
    here, there = covisible_points(
        torch.full((48, 64), 2.0), torch.full((48, 64), 1.0), INTRINSICS, pose(), pose(z=1.0)
    )
    centre = torch.tensor([32.0, 24.0], dtype=torch.float64)
    torch.testing.assert_close(there - centre, 2 * (here - centre))


def test_occluded_and_unmeasured_points_are_left_out():
    source = torch.full((48, 64), 2.0)
    source[:, :4] = 0
    target = torch.full((48, 64), 2.0)
    target[:10] = 1.0
    target[10:20] = 0.0
    here, _ = covisible_points(source, target, INTRINSICS, pose(), pose())
    assert here[:, 1].min() == 20.5 and here[:, 0].min() == 4.5
    assert len(here) == 28 * 60


def test_a_turned_camera_sees_nothing():
    behind = pose()
    behind[0, 0] = behind[2, 2] = -1
    here, _ = covisible_points(torch.full((48, 64), 2.0), torch.full((48, 64), 2.0), INTRINSICS, pose(), behind)
    assert len(here) == 0
