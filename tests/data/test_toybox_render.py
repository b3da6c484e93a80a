"""Rendered maps against independent geometry: depth, normals, masks, shadows, key points of two cameras."""

import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from eyespot.data.toybox import SHAPES, low_high, render
from eyespot.data.toybox.place import CARD, SLOTS
from eyespot.data.toybox.scenes import sample_scenes
from eyespot.data.toybox.tracer import camera_rays, cast, lit
from eyespot.data.toybox.truth import visible

SIZE = 64
SEEDS = range(40, 72)


@pytest.fixture(scope="module")
def scenes():
    return render(SEEDS, SIZE), render(SEEDS, SIZE, camera=1)


def unproject(scene, xy, depth):
    """World points [B, K, 3] of picture positions [B, K, 2] at a depth [B, K], in float64."""
    inverse = torch.linalg.inv(scene.intrinsics.double())
    homogeneous = torch.cat([xy.double(), torch.ones_like(xy[..., :1]).double()], -1)
    camera = homogeneous @ inverse.mT * depth.double()[..., None]
    pose = scene.camera_to_world.double()
    return camera @ pose[:, :3, :3].mT + pose[:, None, :3, 3]


def pixel_centres(scene):
    step = torch.arange(SIZE) + 0.5
    y, x = torch.meshgrid(step, step, indexing="ij")
    return torch.stack([x, y], -1).view(1, -1, 2).expand(len(scene), -1, -1)


def signed(world, scene: int, slot: int, points):
    """Negative inside a solid, positive outside: an implicit function in the world, written anew in float64."""
    c, s = world.turn[scene, slot].double()
    offset = points - world.centre[scene, slot].double()
    hx, hy, hz = world.half[scene, slot].double()
    x, y, z = c * offset[..., 0] + s * offset[..., 1], c * offset[..., 1] - s * offset[..., 0], offset[..., 2]
    kind = SHAPES[int(world.shape[scene, slot])]
    if kind == "capsule":
        return (x * x + y * y + (z - z.clamp(hx - hz, hz - hx)) ** 2).sqrt() - hx
    x, y, z = x / hx, y / hy, z / hz
    if kind == "sphere":
        return (x * x + y * y + z * z).sqrt() - 1
    across = torch.maximum(x.abs(), y.abs()) if kind in ("box", "pyramid") else (x * x + y * y).sqrt()
    if kind in ("cone", "pyramid"):
        return torch.maximum(across - (1 - z) / 2, -1 - z)
    return torch.maximum(across, z.abs()) - 1


def test_depth_of_a_sphere_and_the_ground_by_hand():
    world = sample_scenes([0])
    centre, radius = torch.tensor([0.0, 0.0, 0.6]), 0.6
    world = replace(
        world,
        present=torch.tensor([[True, False, False, False, False]]),
        shape=torch.zeros_like(world.shape),
        centre=centre.expand(1, SLOTS, 3).clone(),
        half=torch.full((1, SLOTS, 3), radius),
        position=torch.tensor([[[0.0, -5.0, 0.6]] * 2]),
        rotation=torch.tensor([[[[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]]] * 2]),
        focal=torch.ones(1, 2),
        wall=torch.tensor([[0.0, 1.0, 3.0]]),
    )
    x, y = torch.tensor([0.0, 0.05, 0.0, 0.3]), torch.tensor([0.0, 0.02, 0.3, -0.3])
    hits = cast(world, camera_rays(world, 0, x, y))
    # Straight at the centre: 5 - 0.6. Off the centre: |t (x, y, 1) - (0, 0, 5)| = 0.6. Below: 0.6 = t * 0.3. Wall: 8.
    a, b, c = 1 + 0.05**2 + 0.02**2, 5.0, 25 - 0.36
    expected = torch.tensor([4.4, (b - (b * b - a * c) ** 0.5) / a, 2.0, 8.0])
    torch.testing.assert_close(hits.t[0], expected, atol=1e-5, rtol=0)
    assert hits.surface[0].tolist() == [0, 0, 5, 6]


def test_back_projected_pixels_lie_on_the_surface_they_are_labelled_with(scenes):
    world = sample_scenes(SEEDS)
    for scene in scenes:
        points = unproject(scene, pixel_centres(scene), scene.depth.flatten(1))
        for index in range(len(scene)):
            instances, semantic = scene.instances[index].flatten(), scene.semantic[index].flatten()
            for slot in range(SLOTS):
                on_solid = points[index][instances == slot + 1]
                if len(on_solid):
                    assert signed(world, index, slot, on_solid).abs().max() < 1e-4
            assert points[index][semantic == 0][:, 2].abs().max() < 1e-4
            nx, ny, offset = world.wall[index].double()
            on_wall = points[index][semantic == 1]
            assert (on_wall[:, 0] * nx + on_wall[:, 1] * ny - offset).abs().max() < 1e-4


def test_nothing_stands_between_camera_and_hit(scenes):
    """Occlusion order: marching along each ray up to its depth never passes through a solid."""
    world = sample_scenes(SEEDS)
    scene = scenes[0]
    every = slice(0, None, 7)
    xy, depth = pixel_centres(scene)[:, every], scene.depth.flatten(1)[:, every]
    points = torch.stack([unproject(scene, xy, depth * part) for part in torch.linspace(0.25, 0.99, 60)], 1)
    for index in range(0, len(scene), 2):
        for slot in range(SLOTS):
            if world.present[index, slot]:
                assert signed(world, index, slot, points[index]).min() > -1e-4


def test_shadows_are_where_the_way_to_the_light_is_barred():
    world = sample_scenes(range(8))
    way = torch.linspace(0, 6, 400, dtype=torch.float64)[:, None, None]
    step = (torch.arange(24) + 0.5) / 24 - 0.5
    rays = camera_rays(world, 0, step.repeat(24), step.repeat_interleave(24))
    hits = cast(world, rays)
    normal, points = torch.stack(hits.normal, -1), torch.stack(hits.point, -1).double()
    facing = (normal * world.light[:, None]).sum(-1)
    bright = lit(world, hits, facing)
    shaded = 0
    for index in range(len(world)):
        deepest = torch.full((points.shape[1],), torch.inf, dtype=torch.float64)
        for slot in range(SLOTS):
            if not world.present[index, slot]:
                continue
            own = hits.surface[index] == slot
            value = signed(world, index, slot, points[index] + way * world.light[index].double()).amin(0)
            deepest = torch.minimum(deepest, torch.where(own, torch.inf, value))
        lit_side = facing[index] > 0
        sure = lit_side & (deepest.abs() > 0.03)
        assert torch.equal(bright[index][sure] == 0, deepest[sure] < 0)
        shaded += int((bright[index][lit_side] == 0).sum())
    assert shaded > 60


def test_plain_solids_brighten_towards_the_light_and_the_ground_is_dark_in_shadow():
    seeds = range(100, 160)
    scenes, world = render(seeds, 32, antialias=False), sample_scenes(seeds)
    step = (torch.arange(32) + 0.5) / 32 - 0.5
    hits = cast(world, camera_rays(world, 0, step.repeat(32), step.repeat_interleave(32)))
    facing = (torch.stack(hits.normal, -1) * world.light[:, None]).sum(-1)
    bright = lit(world, hits, facing)
    linear = (scenes.images**2).mean(1).flatten(1)
    plain, darker = 0, []
    for index in range(len(scenes)):
        main = (hits.surface[index] == 0) & ((facing[index] < 0) | (bright[index] > 0))
        if scenes.pattern[index] == 0 and facing[index][main].std() > 0.1:
            pair = torch.stack([facing[index][main].clamp(min=0), linear[index][main]])
            assert torch.corrcoef(pair)[0, 1] > 0.7
            plain += 1
        ground = hits.surface[index] == 5
        shaded, open_ = (linear[index][ground & (bright[index] == value)] for value in (0, 1))
        if len(shaded) > 8:
            darker.append(bool(shaded.mean() < 0.8 * open_.mean()))
    assert plain > 5
    assert len(darker) > 20 and sum(darker) / len(darker) > 0.95


def test_normals_are_unit_face_the_camera_and_agree_with_the_depth(scenes):
    scene = scenes[0]
    assert (scene.normals.norm(dim=1) - 1).abs().max() < 1e-5
    xy = pixel_centres(scene)
    inverse = torch.linalg.inv(scene.intrinsics)
    rays = torch.cat([xy, torch.ones_like(xy[..., :1])], -1) @ inverse.mT
    points = (rays * scene.depth.flatten(1)[..., None]).mT.view(-1, 3, SIZE, SIZE)
    assert ((scene.normals * points).sum(1) < 1e-5).all()
    across = points[:, :, 1:-1, 2:] - points[:, :, 1:-1, :-2]
    down = points[:, :, 2:, 1:-1] - points[:, :, :-2, 1:-1]
    estimate = F.normalize(torch.linalg.cross(down, across, dim=1), dim=1)
    cosine = (estimate * scene.normals[:, :, 1:-1, 1:-1]).sum(1)
    # On flat faces the estimate is exact: there the normal is the same in the whole neighbourhood.
    same = [(scene.normals[:, :, 1:-1, 1:-1] * n).sum(1) > 0.99999 for n in neighbours(scene.normals)]
    region = scene.instances * 16 + scene.semantic
    inside = torch.stack([region[:, 1:-1, 1:-1] == n for n in neighbours(region[:, None])], 0)[:, :, 0].all(0)
    flat = torch.stack(same).all(0) & inside
    assert flat.float().mean() > 0.5
    assert cosine[flat].min() > 0.999
    assert cosine[inside].quantile(0.01) > 0.9


def neighbours(maps):
    return [maps[..., 1:-1, 2:], maps[..., 1:-1, :-2], maps[..., 2:, 1:-1], maps[..., :-2, 1:-1]]


def test_depth_edges_lie_on_mask_edges(scenes):
    """A jump of inverse depth, which is linear on every plane, happens only where the instance changes."""
    scene = scenes[0]
    inverse = 1 / scene.depth
    bend = (inverse[:, :, 2:] - 2 * inverse[:, :, 1:-1] + inverse[:, :, :-2]).abs()
    edge = scene.boundaries[:, :, 1:-1] | scene.boundaries[:, :, :-2]
    crease = (scene.semantic[:, :, 2:] <= 1) & (scene.semantic[:, :, :-2] <= 1)
    assert bend[~edge & crease].max() < 0.01
    assert bend[~edge].max() < 0.04
    jump = (inverse[:, :, 1:] - inverse[:, :, :-1]).abs() > 0.05
    mask_edge = scene.instances[:, :, 1:] != scene.instances[:, :, :-1]
    assert jump.sum() > 500
    assert (jump & mask_edge).sum() / jump.sum() > 0.97
    assert torch.equal(scene.boundaries[:, :-1, :-1] & ~edges_of(scene.semantic)[:, :-1, :-1], same_class_edges(scene))


def edges_of(labels):
    edges = torch.zeros_like(labels, dtype=torch.bool)
    edges[:, :, :-1] |= labels[:, :, :-1] != labels[:, :, 1:]
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    return edges


def same_class_edges(scene):
    """Boundaries between two solids of the same class: all that the semantic edges may miss."""
    return (edges_of(scene.instances) & ~edges_of(scene.semantic))[:, :-1, :-1]


def test_saliency_instances_and_semantics_agree(scenes):
    world = sample_scenes(SEEDS)
    for scene in scenes:
        assert torch.equal(scene.saliency, scene.instances == 1)
        assert torch.equal(scene.instances == CARD + 1, scene.semantic == 2)
        assert torch.equal(scene.instances == 0, scene.semantic < 2)
        for index in range(len(scene)):
            assert (scene.semantic[index][scene.saliency[index]] == 3 + scene.shape[index]).all()
            counts = scene.instances[index].flatten().bincount(minlength=6)
            assert torch.equal(counts[1:] > 0, world.present[index])
            assert counts[1] >= 60 and counts[1] > counts[2:5].max()


def test_key_points_of_both_cameras_are_the_same_world_points(scenes):
    first, second = scenes
    assert (first.keypoints_visible & second.keypoints_visible).float().mean() > 0.95
    rows = torch.arange(len(first))[:, None]
    world_points = []
    for scene in scenes:
        assert scene.keypoints[scene.keypoints_visible].min() >= 0
        assert scene.keypoints[scene.keypoints_visible].max() <= SIZE
        # The ray through the point's exact position meets it at the depth that its two pictures agree on.
        world = sample_scenes(SEEDS)
        x, y = (scene.keypoints / SIZE - 0.5).unbind(-1)
        depth = cast(world, camera_rays(world, scene.camera, x, y)).t
        world_points.append(unproject(scene, scene.keypoints, depth))
        # And the depth map around it holds that depth.
        column, row = scene.keypoints.long().clamp(0, SIZE - 1).unbind(-1)
        padded = F.pad(scene.depth[:, None], (1, 1, 1, 1), mode="replicate")
        low = -F.max_pool2d(-padded, 3, 1)[:, 0][rows, row, column]
        high = F.max_pool2d(padded, 3, 1)[:, 0][rows, row, column]
        fits = (depth > low - 0.02) & (depth < high + 0.02)
        assert fits[scene.keypoints_visible].float().mean() > 0.98
    both = first.keypoints_visible & second.keypoints_visible
    assert (world_points[0] - world_points[1]).norm(dim=-1)[both].max() < 5e-3
    assert (first.keypoints - second.keypoints).norm(dim=-1)[both].mean() > 1


def test_hidden_points_are_not_visible():
    world = sample_scenes(SEEDS)
    assert not visible(world, world.centre[:, :1], 0).any()
    assert not visible(world, torch.full((len(world), 1, 3), 50.0), 0).any()


@pytest.mark.parametrize("size", [32, 57])
def test_a_scene_is_the_same_alone_and_in_any_batch(size):
    together = render(range(5, 14), size)
    again = render([13, 7], size)
    alone = render([7], size)
    for name, value in vars(alone).items():
        whole, pair = getattr(together, name), getattr(again, name)
        if isinstance(value, torch.Tensor):
            assert torch.equal(whole[2], value[0]), name
            assert torch.equal(pair[1], value[0]), name
        elif name != "camera":
            assert whole[2] == value[0] == pair[1], name


def test_pieces_and_threads_do_not_show(monkeypatch):
    module = sys.modules["eyespot.data.toybox.render"]
    whole = render(range(4), 40)
    monkeypatch.setattr(module, "_RAYS_AT_ONCE", 3000)
    threads = torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        try:
            pieces = render(range(4), 40)
            assert torch.get_num_threads() == count
        finally:
            torch.set_num_threads(threads)
        for name in ("images", "depth", "normals", "semantic"):
            assert torch.equal(getattr(whole, name), getattr(pieces, name)), name


def test_antialiasing_changes_only_the_picture():
    smooth, sharp = render(range(3), 32), render(range(3), 32, antialias=False)
    assert not torch.equal(smooth.images, sharp.images)
    for name in ("depth", "normals", "instances", "keypoints"):
        assert torch.equal(getattr(smooth, name), getattr(sharp, name))
    assert smooth.images.dtype == torch.float32
    assert smooth.images.min() >= 0 and smooth.images.max() <= 1


def test_the_same_scene_at_two_sizes(scenes):
    large = render(SEEDS, 2 * SIZE)
    assert (F.avg_pool2d(large.images, 2) - scenes[0].images).abs().mean() < 0.02
    torch.testing.assert_close(large.keypoints, 2 * scenes[0].keypoints)


def test_low_and_high_resolution_pairs():
    low, high = low_high(range(3), 48, 4)
    assert low.shape == (3, 3, 12, 12) and high.shape == (3, 3, 48, 48)
    assert torch.equal(high, render(range(3), 48).images)
    torch.testing.assert_close(low[:, :, 2, 5], high[:, :, 8:12, 20:24].mean((-1, -2)))
    with pytest.raises(ValueError, match="divide"):
        low_high(range(3), 48, 5)
    with pytest.raises(ValueError, match="divide"):
        low_high(range(3), 48, 0)


def test_bad_arguments():
    with pytest.raises(ValueError, match="at least 8 pixels"):
        render([0], 4)
    with pytest.raises(ValueError, match="cameras 0 and 1"):
        render([0], 32, camera=2)
    with pytest.raises(ValueError, match="seeds is empty"):
        render([], 32)
