"""Everything that is known about a rendered scene, and what follows from it in words."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eyespot.data.toybox.cards import WORDS
from eyespot.data.toybox.place import CARD, SLOTS, SOLIDS
from eyespot.data.toybox.scenes import COLOURS, GROUND, PATTERNS, SHAPES, WALL, World
from eyespot.data.toybox.tracer import camera_rays, cast

SEMANTIC_CLASSES = ["ground", "wall", "card", *SHAPES]
KEYPOINTS = 16

_NUMBERS = ["no", "one", "two", "three", "four"]
_ADJECTIVES = {"plain": "", "stripes": "striped ", "checker": "checkered ", "dots": "dotted "}


@dataclass(frozen=True)
class Scenes:
    """B rendered scenes with their ground truth, all from one camera. Sizes are in pixels, lengths in metres.

    Pixel (row i, column j) has its centre at picture position x = j + 0.5, y = i + 0.5; all maps hold at that point.

    Attributes:
        images: [B, 3, S, S] float32 RGB in [0, 1].
        depth: [B, S, S] along the optical axis, finite and positive.
        normals: [B, 3, S, S], unit, in the camera frame (x right, y down, z forward).
        semantic: [B, S, S] int64, index in `SEMANTIC_CLASSES`.
        instances: [B, S, S] int64: 0 background, 1 the main object, 2 to 4 other solids, 5 the card.
        boundaries: [B, S, S] bool, pixels whose right or lower neighbour shows another instance.
        saliency: [B, S, S] bool, the main object.
        shape: [B] int64, index in `SHAPES`, of the main object.
        colour: [B] int64, index in `COLOURS`, of the main object.
        pattern: [B] int64, index in `PATTERNS`, of the main object.
        word: [B] int64, index in `WORDS`, -1 for a scene without a card.
        captions: One sentence per scene.
        questions: Per scene, (question, answer) pairs.
        keypoints: [B, 16, 2], picture positions (x, y) of surface points; the same points whichever camera is rendered.
        keypoints_visible: [B, 16] bool, inside the picture and not hidden.
        intrinsics: [B, 3, 3], pinhole matrix in pixels.
        camera_to_world: [B, 4, 4]; world: x right, y away, z up, ground at z = 0.
        seeds: The scenes' seeds.
        camera: 0 or 1.
    """

    images: Tensor
    depth: Tensor
    normals: Tensor
    semantic: Tensor
    instances: Tensor
    boundaries: Tensor
    saliency: Tensor
    shape: Tensor
    colour: Tensor
    pattern: Tensor
    word: Tensor
    captions: list[str]
    questions: list[list[tuple[str, str]]]
    keypoints: Tensor
    keypoints_visible: Tensor
    intrinsics: Tensor
    camera_to_world: Tensor
    seeds: list[int]
    camera: int

    def __len__(self) -> int:
        return len(self.seeds)


def semantic_map(world: World, surface: Tensor) -> Tensor:
    """Semantic classes [B, S, S] from the surface numbers [B, S, S]."""
    names = torch.zeros(len(world), SLOTS + 2, dtype=torch.int64)
    names[:, :SOLIDS] = world.shape[:, :SOLIDS] + SEMANTIC_CLASSES.index(SHAPES[0])
    names[:, CARD] = SEMANTIC_CLASSES.index("card")
    names[:, GROUND], names[:, WALL] = SEMANTIC_CLASSES.index("ground"), SEMANTIC_CLASSES.index("wall")
    index = surface + (SLOTS + 2) * torch.arange(len(world), dtype=torch.int32)[:, None, None]
    return names.flatten().index_select(0, index.flatten()).view(surface.shape)


def instance_map(surface: Tensor) -> Tensor:
    """Instance numbers [B, S, S] from the surface numbers."""
    return torch.where(surface < SLOTS, surface + 1, 0).long()


def boundary_map(instances: Tensor) -> Tensor:
    """Pixels of [B, S, S] whose right or lower neighbour belongs to another instance, bool."""
    edges = torch.zeros_like(instances, dtype=torch.bool)
    edges[:, :, :-1] |= instances[:, :, :-1] != instances[:, :, 1:]
    edges[:, :-1] |= instances[:, :-1] != instances[:, 1:]
    return edges


def project(world: World, points: Tensor, camera: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where world points [B, K, 3] appear: x and y in picture widths from the centre, and depth, [B, K] each."""
    offset = points - world.position[:, camera, None]
    axes = world.rotation[:, camera, None]
    x, y, z = (
        offset[..., 0] * axes[..., 0, i] + offset[..., 1] * axes[..., 1, i] + offset[..., 2] * axes[..., 2, i]
        for i in range(3)
    )
    focal = world.focal[:, camera, None]
    return x / z * focal, y / z * focal, z


def visible(world: World, points: Tensor, camera: int) -> Tensor:
    """Whether surface points [B, K, 3] are inside the picture and met first by the camera's ray, [B, K] bool."""
    x, y, depth = project(world, points, camera)
    inside = (x.abs() < 0.49) & (y.abs() < 0.49)
    hits = cast(world, camera_rays(world, camera, x.clamp(-0.5, 0.5), y.clamp(-0.5, 0.5)))
    return inside & ((hits.t - depth).abs() < 2e-3)


def choose_keypoints(world: World) -> Tensor:
    """[B, 16, 3] surface points that both cameras see where possible, solids and card first.

    Candidates are the hits of a fixed 12 x 12 net of rays of camera 0. Those on solids and card that both cameras see
    come first, at most six per surface; then ground and wall.
    """
    side = 12
    step = (torch.arange(side) + 0.5) / side - 0.5
    x, y = (0.94 * step).repeat(side), (0.94 * step).repeat_interleave(side)
    hits = cast(world, camera_rays(world, 0, x, y))
    points = torch.stack(hits.point, -1)
    seen = visible(world, points, 0) & visible(world, points, 1)
    # A fixed shuffle spreads the choice over the picture.
    mixed = torch.arange(side * side) * 55 % (side * side)
    points, surface, seen = points[:, mixed], hits.surface[:, mixed], seen[:, mixed]
    rank = torch.zeros_like(surface, dtype=torch.int64)
    for index in range(SLOTS + 2):
        member = (surface == index) & seen
        turn = member.long().cumsum(1)
        first = (turn > 6) * 2 if index < SLOTS else 1 + (turn > 4)
        rank = torch.where(member, first, rank)
    rank = torch.where(seen, rank, 3)
    order = rank.argsort(dim=1, stable=True)[:, :KEYPOINTS]
    return points.gather(1, order[..., None].expand(-1, -1, 3))


def captions_and_questions(world: World, camera: int) -> tuple[list[str], list[list[tuple[str, str]]]]:
    """A caption and questions with answers for every scene, as seen from `camera`."""
    x, _, depth = project(world, world.centre, camera)
    captions, questions = [], []
    for scene in range(len(world)):
        names = [_name(world, scene, slot) for slot in range(SOLIDS) if world.present[scene, slot]]
        word = int(world.word[scene])
        captions.append(_caption(names, word))
        questions.append(_questions(world, scene, x[scene].tolist(), depth[scene].tolist(), word))
    return captions, questions


def _name(world: World, scene: int, slot: int) -> str:
    numbers = (int(values[scene, slot]) for values in (world.pattern, world.colour, world.shape))
    return _words_for(*numbers)


def phrases(pattern: Tensor, colour: Tensor, shape: Tensor) -> list[str]:
    """Attributes [B] int64 in words, e.g. "a striped green box": what an image-text expert reads."""
    attributes = zip(pattern.tolist(), colour.tolist(), shape.tolist(), strict=True)
    return [_with_article(_words_for(*numbers)) for numbers in attributes]


def _words_for(pattern: int, colour: int, shape: int) -> str:
    return f"{_ADJECTIVES[PATTERNS[pattern]]}{COLOURS[colour]} {SHAPES[shape]}"


def _with_article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _caption(names: list[str], word: int) -> str:
    articled = [_with_article(name) for name in names]
    listed = ", ".join(articled[:-1]) + (" and " if len(articled) > 1 else "") + articled[-1]
    card = f" next to a card that says {WORDS[word]}" if word >= 0 else ""
    return f"{listed[0].upper()}{listed[1:]}{card}."


def _questions(world: World, scene: int, x: list[float], depth: list[float], word: int) -> list[tuple[str, str]]:
    standing = [slot for slot in range(SOLIDS) if world.present[scene, slot]]
    shapes = [SHAPES[int(world.shape[scene, slot])] for slot in standing]
    main = f"{COLOURS[int(world.colour[scene, 0])]} {shapes[0]}"
    answers = [
        ("What shape is the largest solid?", shapes[0]),
        ("What colour is the largest solid?", COLOURS[int(world.colour[scene, 0])]),
        ("What pattern has the largest solid?", PATTERNS[int(world.pattern[scene, 0])]),
        ("What does the card say?", WORDS[word] if word >= 0 else "there is no card"),
        ("How many solids are there?", _NUMBERS[len(standing)]),
    ]
    # The last slot's colour and pattern serve as independent draws: they keep yes and no in balance.
    number, offset = int(world.colour[scene, SOLIDS - 1]), int(world.pattern[scene, SOLIDS - 1])
    missing = [shape for shape in SHAPES if shape not in shapes]
    asked = shapes[-1] if number % 2 else missing[(number // 2 + offset) % len(missing)]
    answers.append((f"Is there a {asked}?", "yes" if asked in shapes else "no"))
    if word >= 0:
        side = "left" if x[CARD] < x[0] else "right"
        answers.append((f"Is the card to the left or to the right of the {main}?", side))
    other = _name(world, scene, standing[-1])
    if len(standing) > 1 and other != _name(world, scene, 0):
        closer = "yes" if depth[standing[-1]] < depth[0] else "no"
        answers.append((f"Is the {other} closer than the {_name(world, scene, 0)}?", closer))
    return answers
