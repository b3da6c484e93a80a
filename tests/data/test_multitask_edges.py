import numpy as np
import torch
from scipy import ndimage
from skimage.morphology import thin

from eyespot.data.labelled.edges import class_boundaries, surface_boundaries, thinned
from eyespot.data.labelled.geometry import depth_to_normals
from eyespot.dense_tasks import IGNORE

INTRINSICS = torch.tensor([[60.0, 0, 32], [0, 60.0, 24], [0, 0, 1]], dtype=torch.float64)


def patches(seed=0, height=40, width=50, classes=6):
    """A class map of random blocks."""
    small = np.random.default_rng(seed).integers(0, classes, (height // 8 + 1, width // 10 + 1))
    return torch.from_numpy(np.kron(small, np.ones((8, 10), int))[:height, :width])


def test_class_boundaries_are_the_published_thinned_laplacian():
    for seed in range(3):
        classes = patches(seed, classes=459)
        laplacian = ndimage.laplace(classes.numpy(), mode="mirror")
        expected = torch.from_numpy(thin(laplacian != 0)).to(torch.uint8)
        assert torch.equal(class_boundaries(classes, ignored=None), expected)
        assert 0.03 < expected.float().mean() < 0.4


def test_a_straight_boundary_is_one_line_of_one_pixel():
    classes = torch.zeros(20, 30, dtype=torch.uint8)
    classes[:, 15:] = 3
    lines = class_boundaries(classes)
    assert lines.dtype == torch.uint8
    assert lines[1:-1].sum(1).tolist() == [1] * 18  # thinning may shorten a line at its ends
    assert bool(lines[1:-1, 14:16].any(1).all()) and lines.unique().tolist() == [0, 1]


def test_ignored_pixels_make_no_boundary_and_have_no_label():
    classes = torch.full((20, 30), 2, dtype=torch.uint8)
    classes[5:12, 8:20] = IGNORE
    lines = class_boundaries(classes)
    assert torch.equal(lines == IGNORE, classes == IGNORE)
    assert not (lines == 1).any()
    # 255 is a class like any other where nothing is ignored.
    assert (class_boundaries(classes, ignored=None) == 1).any()
    # Beside an ignored region other boundaries stay.
    classes[:, 24:] = 4
    lines = class_boundaries(classes)
    assert (lines[2:-2, 22:26] == 1).any(1).all()


def test_thinning_keeps_a_line_and_makes_it_thin():
    band = torch.zeros(21, 31, dtype=torch.bool)
    band[8:13, 2:-2] = True
    line = thinned(band)
    assert line.dtype == torch.bool and bool((line & ~band).sum() == 0)
    assert line[:, 6:-6].sum(0).tolist() == [1] * 19


def scene():
    """A box at 1 m before a wall at 2 m, and beside the box a strip in which nothing is measured."""
    depth = torch.full((48, 64), 2.0)
    depth[12:36, 20:40] = 1.0
    depth[12:36, 16:20] = 0.0
    return depth


def test_depth_jumps_are_lines_on_the_nearer_surface():
    depth = scene()
    lines = surface_boundaries(depth, depth_to_normals(depth, INTRINSICS))
    found = lines == 1
    assert bool((depth[found] == 1).all())  # on the box, not on the wall
    rows, columns = found.nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (12, 35, 20, 39)
    assert found[20].nonzero().flatten().tolist() == [20, 39]  # the left edge lies behind the gap in the measurements
    assert found[:, 30].nonzero().flatten().tolist() == [12, 35]
    assert torch.equal(lines == IGNORE, depth == 0)


def test_slopes_and_small_steps_are_no_boundary():
    columns = torch.arange(64).float()
    depth = (1.5 + 0.02 * columns).expand(48, 64).clone()
    depth[:, 32:] *= 1.02
    assert not (surface_boundaries(depth, torch.zeros(3, 48, 64)) == 1).any()


def test_a_wide_gap_is_not_bridged():
    depth = scene()
    depth[12:36, 8:20] = 0.0
    assert surface_boundaries(depth, torch.zeros(3, 48, 64))[20].eq(1).nonzero().flatten().tolist() == [39]


def test_creases_of_the_normals_are_boundaries():
    # Two walls that meet in a corner at column 32: 1/z is linear on both sides.
    x = torch.arange(64) + 0.5 - 32
    depth = (1 / (0.4 + 0.015 * x.abs())).expand(48, 64).clone()
    normals = depth_to_normals(depth, INTRINSICS)
    bend = torch.rad2deg(torch.acos((normals[:, 24, 20] * normals[:, 24, 44]).sum()))
    assert bend > 60
    found = surface_boundaries(depth, normals) == 1
    assert found[10:-10].sum(1).tolist() == [1] * 28
    assert bool((found[10:-10].nonzero()[:, 1] - 31.5).abs().max() <= 1.5)


def test_the_noise_of_a_depth_camera_is_no_boundary():
    generator = torch.Generator().manual_seed(0)
    depth = 3 * (1 + 0.005 * torch.randn(48, 64, generator=generator))
    depth[10, 10], depth[30:32, 40] = 1.0, 1.0  # specks
    camera = torch.tensor([[290.0, 0, 32], [0, 290.0, 24], [0, 0, 1]], dtype=torch.float64)
    normals = depth_to_normals(depth, camera)
    spread = torch.rad2deg(torch.acos((-normals[2][normals.any(0)]).clamp(-1, 1)))
    assert spread.median() > 10
    assert not (surface_boundaries(depth, normals) == 1).any()
