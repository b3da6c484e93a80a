import pytest
import torch
import torch.nn.functional as F

from eyespot.evaluate import FeatureBank, correspondence
from eyespot.evaluate.correspondence import match, pck
from eyespot.evaluate.datasets import MatchingData, PointPair, TensorPictures
from eyespot.evaluate.geometry import back_project, covisible_points, pixel_centres
from eyespot.features import Features


def place_code(height, width):
    """A map whose vector tells its place: two angles, each as a point on a circle."""
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    return torch.stack([x.cos(), x.sin(), y.cos(), y.sin()])


def test_pck_by_hand():
    truth = [torch.zeros(2, 2), torch.zeros(1, 2), torch.zeros(0, 2)]
    found = [torch.tensor([[10.0, 0], [0, 10.1]]), torch.tensor([[6.0, 8.0]]), torch.zeros(0, 2)]
    per_point, per_image = pck(found, truth, size=(50, 100), alpha=0.1)
    assert per_point == pytest.approx(2 / 3)
    assert per_image == pytest.approx((0.5 + 1) / 2)
    with pytest.raises(ValueError, match="no key points"):
        pck([torch.zeros(0, 2)], [torch.zeros(0, 2)], (8, 8), 0.1)


@pytest.mark.parametrize("grids", [((12, 16), (12, 16)), ((6, 8), (24, 32)), ((24, 32), (6, 8))])
def test_features_that_tell_the_place_find_it(grids):
    size = (96, 128)
    points = pixel_centres(96, 128)[::97].float()
    points = points[((points > 10) & (points < torch.tensor([118, 86]))).all(1)]
    found = match(place_code(*grids[0]), place_code(*grids[1]), points, size)
    assert (found - points).norm(dim=1).max() < 4.5


def test_random_features_find_nothing():
    generator = torch.Generator().manual_seed(0)
    points = pixel_centres(64, 64)[::13].float()
    maps = torch.randn(2, 32, 8, 8, generator=generator)
    assert pck([match(maps[0], maps[1], points, (64, 64))], [points], (64, 64), 0.1)[0] < 0.15


def test_scale_of_features_does_not_matter():
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(2, 8, 6, 6, generator=generator)
    points = torch.rand(20, 2, generator=generator) * 60
    assert torch.equal(
        match(maps[0], maps[1], points, (60, 60)), match(1e3 * maps[0], 1e-3 * maps[1], points, (60, 60))
    )


def test_task_on_shifted_pictures(colours):
    """The second picture is the first, moved by one cell to the right; features are all pixels of a cell."""
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(2)) - 0.5
    colours._encode = lambda pictures: Features(pictures.mean((2, 3)), F.pixel_unshuffle(pictures - 0.5, 8))
    points = (pixel_centres(8, 7) * 8).float()
    pairs = [PointPair(i, i, points, points + torch.tensor([8.0, 0])) for i in range(3)]
    data = MatchingData(TensorPictures(images + 0.5), TensorPictures(images.roll(8, 3) + 0.5), pairs, (64, 64))
    found = correspondence.run(FeatureBank(colours, size=64), data)
    assert found == {"PCK@0.1": 1.0, "PCK@0.05": 1.0, "PCK@0.1/image": 1.0}


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
