"""Rendering: scenes to pictures and ground truth, in pieces small enough to stay in the processor's cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot.data.toybox.scenes import World, sample_scenes
from eyespot.data.toybox.spec import refuse_small_scenes
from eyespot.data.toybox.tracer import camera_rays, cast, shade
from eyespot.data.toybox.truth import (
    Scenes,
    boundary_map,
    captions_and_questions,
    choose_keypoints,
    instance_map,
    project,
    semantic_map,
    visible,
)

# Where a pixel is sampled, in pixels from its centre: the centre itself, then a rotated square around it.
_SAMPLES = [(0.0, 0.0), (-0.125, -0.375), (0.375, -0.125), (0.125, 0.375), (-0.375, 0.125)]
_RAYS_AT_ONCE = 1 << 17
_MOST_THREADS = 8


def render(seeds: Sequence[int], size: int, camera: int = 0, antialias: bool = True) -> Scenes:
    """Renders scenes with everything that is known about them.

    A scene is a pure function of (seed, size, camera, antialias): the same bits alone and in any batch.

    Args:
        seeds: One integer per scene.
        size: Side of the square pictures in pixels, at least 8.
        camera: 0 or 1, two cameras some 10 to 18 degrees apart that see the same world.
        antialias: Average five samples per pixel instead of taking the centre; changes `images` only.

    Returns:
        The scenes, in the order of the seeds.

    Raises:
        ValueError: If `seeds` is empty, `size` is below 8 or `camera` is neither 0 nor 1.
    """
    refuse_small_scenes(size, f"size is {size}")
    if camera not in (0, 1):
        raise ValueError(f"camera is {camera}: a scene has cameras 0 and 1")
    seeds = [int(seed) for seed in seeds]
    world = sample_scenes(seeds)
    samples = _SAMPLES if antialias else _SAMPLES[:1]
    rays_per_scene = size * size * len(samples)
    scenes_at_once = max(1, _RAYS_AT_ONCE // rays_per_scene)
    rows_at_once = max(1, min(size, _RAYS_AT_ONCE // (size * len(samples))))

    def chunk(start: int) -> list[Tensor]:
        part = world[start : start + scenes_at_once]
        bands = [
            _band(part, size, camera, samples, row, min(size, row + rows_at_once))
            for row in range(0, size, rows_at_once)
        ]
        return [torch.cat(maps, -2) for maps in zip(*bands, strict=True)]

    chunks = _each(chunk, range(0, len(world), scenes_at_once))
    images, depth, normals, surface = (torch.cat(maps) for maps in zip(*chunks, strict=True))
    return _scenes(world, seeds, size, camera, images, depth, normals, surface)


def _each(work: Callable[[int], list[Tensor]], items: Sequence[int]) -> list[list[Tensor]]:
    """Does `work` on every item, on as many threads as torch may use.

    One chunk per thread beats splitting every small operation over the threads, above all on a busy machine.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(items) == 1:
        return [work(item) for item in items]
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(min(threads, len(items), _MOST_THREADS)) as pool:
            return list(pool.map(work, items))
    finally:
        torch.set_num_threads(threads)


def _band(
    world: World, size: int, camera: int, samples: list[tuple[float, float]], top: int, bottom: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, depth, normals and surface numbers of the rows from `top` to `bottom`."""
    rows, columns = torch.arange(top, bottom) + 0.5, torch.arange(size) + 0.5
    x = torch.cat([((columns + dx) / size - 0.5).repeat(len(rows)) for dx, _ in samples])
    y = torch.cat([((rows + dy) / size - 0.5).repeat_interleave(size) for _, dy in samples])
    rays = camera_rays(world, camera, x, y)
    hits = cast(world, rays)
    linear = shade(world, rays, hits, camera, 1 / size).view(len(world), 3, len(samples), len(rows), size)
    mixed = linear[:, :, 0].clamp(max=1)
    for index in range(1, len(samples)):
        mixed = mixed + linear[:, :, index].clamp(max=1)
    images = (mixed / len(samples)).sqrt()

    pixels = len(rows) * size
    grid = (len(world), len(rows), size)
    normals = _to_camera(world, camera, [component[:, :pixels] for component in hits.normal])
    return (
        images,
        hits.t[:, :pixels].reshape(grid),
        normals.view(-1, 3, *grid[1:]),
        hits.surface[:, :pixels].reshape(grid),
    )


def _to_camera(world: World, camera: int, vector: list[Tensor]) -> Tensor:
    axes = world.rotation[:, camera, :, :, None]
    return torch.stack(
        [axes[:, 0, i] * vector[0] + axes[:, 1, i] * vector[1] + axes[:, 2, i] * vector[2] for i in range(3)], 1
    )


def _scenes(
    world: World,
    seeds: list[int],
    size: int,
    camera: int,
    images: Tensor,
    depth: Tensor,
    normals: Tensor,
    surface: Tensor,
) -> Scenes:
    points = choose_keypoints(world)
    x, y, _ = project(world, points, camera)
    captions, questions = captions_and_questions(world, camera)
    instances = instance_map(surface)
    intrinsics = torch.zeros(len(world), 3, 3)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = world.focal[:, camera] * size
    intrinsics[:, 0, 2] = intrinsics[:, 1, 2] = size / 2
    intrinsics[:, 2, 2] = 1
    pose = torch.zeros(len(world), 4, 4)
    pose[:, :3, :3], pose[:, :3, 3], pose[:, 3, 3] = world.rotation[:, camera], world.position[:, camera], 1
    return Scenes(
        images=images,
        depth=depth,
        normals=normals,
        semantic=semantic_map(world, surface),
        instances=instances,
        boundaries=boundary_map(instances),
        saliency=instances == 1,
        shape=world.shape[:, 0],
        colour=world.colour[:, 0],
        pattern=world.pattern[:, 0],
        word=world.word,
        captions=captions,
        questions=questions,
        keypoints=(torch.stack([x, y], -1) + 0.5) * size,
        keypoints_visible=visible(world, points, camera),
        intrinsics=intrinsics,
        camera_to_world=pose,
        seeds=seeds,
        camera=camera,
    )


def low_high(seeds: Sequence[int], size: int, factor: int) -> tuple[Tensor, Tensor]:
    """Pairs of a picture at low and at high resolution, for super-resolution.

    Args:
        seeds: One integer per scene.
        size: Side of the high-resolution pictures in pixels.
        factor: How many times smaller the low-resolution pictures are; must divide `size`.

    Returns:
        (low [B, 3, size / factor, size / factor], high [B, 3, size, size]), float32 in [0, 1]; low is the mean of the
        factor x factor block of high.

    Raises:
        ValueError: If `factor` is below 1 or does not divide `size`, and as `render` does.
    """
    if factor < 1 or size % factor:
        raise ValueError(f"factor {factor} does not divide size {size}: choose a size that is a multiple of it")
    high = render(seeds, size).images
    return F.avg_pool2d(high, factor), high
