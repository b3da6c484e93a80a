import math

import pytest
import torch

from eyespot.data.labelled.geometry import back_project, depth_to_normals
from eyespot.data.toybox import render

CAMERA = torch.tensor([[60.0, 0.0, 19.0], [0.0, 55.0, 16.5], [0.0, 0.0, 1.0]], dtype=torch.float64)


def plane_depth(normal, distance, height=30, width=40):
    """Depth of the plane normal . point = -distance, the normal being towards the camera."""
    rays = back_project(torch.ones(height, width), CAMERA)
    return (-distance / (rays @ torch.tensor(normal, dtype=torch.float64))).reshape(height, width)


@pytest.mark.parametrize("normal", [(0, 0, -1), (0.6, 0, -0.8), (0, -0.8, -0.6), (-0.48, 0.64, -0.6)])
@pytest.mark.parametrize("window", [3, 5])
def test_planes_are_exact_up_to_the_border(normal, window):
    depth = plane_depth(normal, 2.0)
    assert depth.amin() > 0
    found = depth_to_normals(depth, CAMERA, window)
    expected = torch.tensor(normal, dtype=torch.float32)[:, None, None].expand(3, 28, 38)
    assert (found[:, 1:-1, 1:-1] - expected).norm(dim=0).max() < math.radians(0.05)
    assert not found[:, 0, 0].any()  # less than half of a corner's window is measured


def test_skew_and_float32_are_understood():
    camera = CAMERA.clone()
    camera[0, 1] = 5
    rays = back_project(torch.ones(30, 40), camera)
    depth = (-2 / (rays @ torch.tensor([0.36, 0.48, -0.8], dtype=torch.float64))).reshape(30, 40)
    found = depth_to_normals(depth.float(), camera.float())
    torch.testing.assert_close(found[:, 15, 20], torch.tensor([0.36, 0.48, -0.8]), atol=1e-3, rtol=0)


def test_unmeasured_pixels_do_not_disturb_their_neighbours():
    depth = plane_depth((0.6, 0, -0.8), 2.0)
    depth[10, 10:13] = 0
    found = depth_to_normals(depth, CAMERA)
    assert not found[:, 10, 10:13].any()
    around = found[:, 9, 9:14]
    assert (around - torch.tensor([0.6, 0, -0.8])[:, None]).norm(dim=0).max() < 1e-3


def test_no_normal_across_an_edge():
    depth = torch.full((30, 40), 2.0)
    depth[:, 20:] = 2.3
    found = depth_to_normals(depth, CAMERA)
    assert not found[:, 5:25, 18:22].any()
    assert bool((found[2, 5:25, :18] < -0.999).all()) and bool((found[2, 5:25, 22:38] < -0.999).all())


def test_noise_is_averaged():
    noise = 0.002 * torch.randn(30, 40, generator=torch.Generator().manual_seed(0))
    depth = plane_depth((0.6, 0, -0.8), 2.0) + noise
    errors = [
        (depth_to_normals(depth, CAMERA, window) - torch.tensor([0.6, 0, -0.8])[:, None, None]).norm(dim=0)[5:25, 5:35]
        for window in (3, 7)
    ]
    assert errors[1].median() < 0.4 * errors[0].median()


def test_nothing_measured_gives_nothing():
    assert not depth_to_normals(torch.zeros(6, 7), CAMERA).any()


def test_rendered_normals_are_found_from_rendered_depth():
    scenes = render([1, 2], 128)
    for depth, normals, camera in zip(scenes.depth, scenes.normals, scenes.intrinsics, strict=True):
        found = depth_to_normals(depth, camera, window=3, tolerance=0.003)
        known = found.norm(dim=0) > 0
        assert known.float().mean() > 0.9
        angles = torch.rad2deg((found * normals).sum(dim=0)[known].clamp(-1, 1).arccos())
        assert angles.median() < 0.05 and angles.quantile(0.95) < 0.5
