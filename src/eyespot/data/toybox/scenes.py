"""What stands where: a scene of the toybox is a pure function of its integer seed.

World frame: x to the right, y away from the camera, z up, metres; the ground is z = 0. All draws of a scene come from
one block of uniform numbers named by its seed. Everything after them is elementwise arithmetic without transcendental
functions, because their vectorised and scalar versions differ in the last bit: so a scene is the same number for
number whatever batch it is sampled in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eyespot.data.toybox import place
from eyespot.data.toybox.cards import CARD_ASPECT, WORDS
from eyespot.data.toybox.place import CARD, SLOTS, SOLIDS, Floats, Ints
from eyespot.data.toybox.textures import GROUNDS, PATTERN_TEXTURES, WALLS, word_texture
from eyespot.randomness import numpy_generator

SHAPES = ["sphere", "box", "cylinder", "cone", "capsule", "pyramid"]
COLOURS = ["red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink"]
PATTERNS = ["plain", "stripes", "checker", "dots"]

GROUND, WALL = SLOTS, SLOTS + 1
SURFACES = SLOTS + 2
DRAWS = 1024

_RGB = np.array(
    [
        [0.86, 0.13, 0.13],
        [0.97, 0.50, 0.06],
        [0.98, 0.83, 0.12],
        [0.16, 0.62, 0.22],
        [0.10, 0.78, 0.80],
        [0.12, 0.28, 0.84],
        [0.48, 0.18, 0.68],
        [0.97, 0.50, 0.70],
    ]
)


@dataclass(frozen=True)
class World:
    """A batch of B scenes as the tracer needs them: float32 tensors unless said otherwise.

    Solids stand in slots 0 (the main object) to 3, the card in slot 4; surface 5 is the ground, 6 the wall.

    Attributes:
        present: [B, 5] bool, whether the slot is taken.
        shape: [B, 5] int64, index in `SHAPES` (the card is a box).
        colour: [B, 4] int64, index in `COLOURS`.
        pattern: [B, 4] int64, index in `PATTERNS`.
        word: [B] int64, index in `WORDS`, -1 without a card.
        centre: [B, 5, 3], metres.
        half: [B, 5, 3], half extents along the slot's own axes, metres.
        turn: [B, 5, 2], cosine and sine of the rotation about z.
        texture: [B, 7] int64, layer of the texture bank of each surface.
        period: [B, 7], metres per texture tile.
        swap: [B, 7] bool, whether the texture's axes are swapped.
        albedo: [B, 7, 2, 3], linear colours at texture value 0 and 1.
        ground_turn: [B, 2], cosine and sine of the ground texture's rotation.
        wall: [B, 3], (nx, ny, offset) of the wall nx * x + ny * y = offset.
        light: [B, 3], unit vector to the light.
        sun: [B, 3], linear colour of the direct light.
        ambient: [B, 3], linear colour of the ambient light.
        position: [B, 2, 3], the two cameras.
        rotation: [B, 2, 3, 3], columns are right, down, forward in the world.
        focal: [B, 2], focal length in picture widths.
    """

    present: Tensor
    shape: Tensor
    colour: Tensor
    pattern: Tensor
    word: Tensor
    centre: Tensor
    half: Tensor
    turn: Tensor
    texture: Tensor
    period: Tensor
    swap: Tensor
    albedo: Tensor
    ground_turn: Tensor
    wall: Tensor
    light: Tensor
    sun: Tensor
    ambient: Tensor
    position: Tensor
    rotation: Tensor
    focal: Tensor

    def __len__(self) -> int:
        return len(self.word)

    def __getitem__(self, which: slice) -> World:
        """A selection of the scenes."""
        return World(**{name: value[which] for name, value in vars(self).items()})

    @property
    def radius(self) -> Tensor:
        """[B, 5], the radius of a sphere about the centre that holds the solid."""
        x, y, z = self.half.unbind(-1)
        return (x * x + y * y + z * z).sqrt()


class SceneDraws:
    """Hands out the uniform numbers of a batch of scenes, always in the same order."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.numbers: Floats = np.stack([numpy_generator("toybox", int(seed)).random(DRAWS) for seed in seeds])
        self.used = 0

    def uniform(self, low: float, high: float, *shape: int) -> Floats:
        """[B, *shape] numbers in [low, high)."""
        count = int(np.prod(shape, dtype=int))
        if self.used + count > DRAWS:
            raise ValueError(f"a scene needs more than {DRAWS} draws: raise DRAWS")
        block = self.numbers[:, self.used : self.used + count].reshape(-1, *shape)
        self.used += count
        return low + (high - low) * block

    def integers(self, count: int, *shape: int) -> Ints:
        """[B, *shape] integers in [0, count)."""
        return self.uniform(0, count, *shape).astype(np.int64)

    def signs(self, *shape: int) -> Floats:
        """[B, *shape] of -1 and 1."""
        return np.where(self.uniform(0, 1, *shape) < 0.5, -1.0, 1.0)


def sample_scenes(seeds: Sequence[int]) -> World:
    """Samples one scene per seed.

    Args:
        seeds: Any integers.

    Returns:
        The scenes, in the order of the seeds.

    Raises:
        ValueError: If `seeds` is empty.
    """
    if len(seeds) == 0:
        raise ValueError("seeds is empty: name at least one scene")
    draws = SceneDraws(seeds)
    wanted = draws.integers(SOLIDS - 1) + 2
    shape = draws.integers(len(SHAPES), SOLIDS)
    colour, pattern = draws.integers(len(COLOURS), SOLIDS), draws.integers(len(PATTERNS), SOLIDS)
    word = np.where(draws.uniform(0, 1) < 0.9, draws.integers(len(WORDS)), -1)
    cameras, layout = _layout(draws, shape, word >= 0, wanted)
    light = _light(draws)
    arrays: dict[str, NDArray] = {
        "colour": colour,
        "pattern": pattern,
        "word": word,
        **layout,
        **_surfaces(draws, colour, pattern, word, layout["half"]),
        "ground_turn": place.turn(draws.uniform(-1, 1)),
        "wall": _wall(draws),
        **light,
        "position": cameras.position,
        "rotation": cameras.rotation,
        "focal": cameras.focal,
    }
    return World(**{name: _tensor(array) for name, array in arrays.items()})


def _tensor(array: NDArray) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.float() if tensor.is_floating_point() else tensor


def _cameras(draws: SceneDraws) -> place.Cameras:
    """Two cameras that look at nearly the same point from 10 to 18 degrees apart."""
    middle = place.turn(draws.uniform(-0.1, 0.1))
    apart = place.turn(draws.signs() * draws.uniform(0.045, 0.08))
    azimuth = np.stack([place.compose(middle, apart * [1, -1]), place.compose(middle, apart)], 1)
    elevation = place.turn(draws.uniform(0.09, 0.29)[:, None] + draws.uniform(-0.03, 0.03, 2))
    roll = place.turn(draws.uniform(-0.035, 0.035, 2))
    target = np.stack([draws.uniform(-0.15, 0.15, 2), draws.uniform(-0.2, 0.1, 2), draws.uniform(0.5, 0.65, 2)], -1)
    distance = draws.uniform(4.6, 7.5)[:, None] * draws.uniform(0.94, 1.06, 2)
    focal = distance * draws.uniform(0.21, 0.235)[:, None] * draws.uniform(0.97, 1.03, 2)
    return place.look_at(target, distance, azimuth, elevation, roll, focal)


def _layout(draws: SceneDraws, shape: Ints, carded: NDArray, wanted: Ints) -> tuple[place.Cameras, dict[str, NDArray]]:
    cameras = _cameras(draws)
    side = draws.signs()
    height = draws.uniform(0.54, 0.64)
    card = place.Card(
        present=carded,
        centre=np.stack([side * draws.uniform(0.65, 0.9), draws.uniform(0.35, 1.1), height], -1),
        half=np.stack([CARD_ASPECT * height, np.full_like(height, 0.03), height], -1),
        # The card turns its face to the middle of the two cameras, give or take 14 degrees.
        turn=place.compose(_facing(cameras), place.turn(draws.uniform(-0.12, 0.12))),
    )
    cameras = place.fit(cameras, card)
    size = np.concatenate([draws.uniform(0.5, 0.66, 1), draws.uniform(0.25, 0.46, SOLIDS - 1)], 1)
    half = place.half_extents(shape, size, draws.uniform(0.86, 1.14, SOLIDS, 3))
    yaw = place.turn(draws.uniform(-1, 1, SOLIDS))
    x = draws.uniform(-1.9, 1.9, SOLIDS, place.PROPOSALS)
    y = draws.uniform(-1.4, 1.5, SOLIDS, place.PROPOSALS)
    # The main object stands in front, on the other side than the card.
    x[:, 0] = -side[:, None] * (0.75 + 0.3 * x[:, 0] / 1.9)
    y[:, 0] = -0.55 + 0.5 * (y[:, 0] - 0.05) / 1.45
    centre, half, standing = place.place_solids(cameras, card, shape, half, yaw, x, y, wanted)
    return cameras, {
        "present": np.concatenate([standing, carded[:, None]], 1),
        "shape": np.concatenate([shape, np.full((len(shape), 1), SHAPES.index("box"))], 1),
        "centre": np.concatenate([centre, card.centre[:, None]], 1),
        "half": np.concatenate([half, card.half[:, None]], 1),
        "turn": np.concatenate([yaw, card.turn[:, None]], 1),
    }


def _facing(cameras: place.Cameras) -> Floats:
    """The turn whose x axis is the mean of the two cameras' right axes, on the ground."""
    right = cameras.rotation[:, 0, :2, 0] + cameras.rotation[:, 1, :2, 0]
    return right / np.sqrt(right[:, :1] ** 2 + right[:, 1:] ** 2)


def _surfaces(draws: SceneDraws, colour: Ints, pattern: Ints, word: Ints, half: Floats) -> dict[str, NDArray]:
    batch = len(word)
    texture, period = np.zeros((batch, SURFACES), np.int64), np.ones((batch, SURFACES))
    swap, albedo = np.zeros((batch, SURFACES), bool), np.zeros((batch, SURFACES, 2, 3))

    texture[:, :CARD] = np.array(PATTERN_TEXTURES)[pattern]
    period[:, :CARD] = np.maximum(half[:, :CARD, 0], half[:, :CARD, 2]) * draws.uniform(0.5, 0.8, SOLIDS)
    swap[:, :CARD] = draws.integers(2, SOLIDS) == 1
    albedo[:, :CARD, 0] = np.clip(_RGB[colour] * draws.uniform(0.9, 1.05, SOLIDS, 1), 0, 1)
    light_mark = (draws.uniform(0, 1, SOLIDS, 1) < 0.6) & (colour[..., None] != COLOURS.index("yellow"))
    albedo[:, :CARD, 1] = np.where(light_mark, 0.96, 0.13) + draws.uniform(-0.03, 0.03, SOLIDS, 3)

    texture[:, CARD] = [word_texture(max(int(index), 0)) for index in word]
    paper = _hsv(draws.uniform(0, 1), draws.uniform(0, 0.22), draws.uniform(0.88, 1.0))
    ink = _hsv(draws.uniform(0, 1), draws.uniform(0, 0.9), draws.uniform(0.05, 0.32))
    inverted = (draws.uniform(0, 1) < 0.3)[:, None]
    albedo[:, CARD, 0], albedo[:, CARD, 1] = np.where(inverted, ink, paper), np.where(inverted, paper, ink)

    for surface, textures in ((GROUND, GROUNDS), (WALL, WALLS)):
        texture[:, surface] = np.array(textures)[draws.integers(len(textures))]
        period[:, surface] = draws.uniform(0.9, 2.2)
        swap[:, surface] = draws.integers(2) == 1
        hue, saturation, value = draws.uniform(0, 1), draws.uniform(0.05, 0.5), draws.uniform(0.45, 0.92)
        step = draws.signs() * draws.uniform(0.1, 0.26)
        other = np.where((value + step > 1) | (value + step < 0.25), value - step, value + step)
        albedo[:, surface, 0] = _hsv(hue, saturation, value)
        albedo[:, surface, 1] = _hsv(hue + draws.uniform(-0.06, 0.06), saturation * draws.uniform(0.6, 1.4), other)
    # Colours are named as they look on a screen; the square is its approximate linear light.
    return {"texture": texture, "period": period, "swap": swap, "albedo": albedo**2}


def _hsv(hue: Floats, saturation: Floats, value: Floats) -> Floats:
    channels = []
    for shift in (0.0, 2 / 3, 1 / 3):
        phase = hue + shift
        ramp = np.clip(np.abs((phase - np.floor(phase)) * 6 - 3) - 1, 0, 1)
        channels.append(value * (1 - saturation + saturation * ramp))
    return np.stack(channels, -1)


def _light(draws: SceneDraws) -> dict[str, NDArray]:
    side, up = place.turn(draws.signs() * draws.uniform(0.2, 0.7)), place.turn(draws.uniform(0.25, 0.5))
    strength, warmth = draws.uniform(0.85, 1.15), draws.uniform(-0.1, 0.1)
    fill, cool = draws.uniform(0.28, 0.45), draws.uniform(-0.06, 0.08)
    return {
        "light": np.stack([side[:, 1] * up[:, 0], -side[:, 0] * up[:, 0], up[:, 1]], -1),
        "sun": strength[:, None] * np.stack([1 + warmth, np.ones_like(warmth), 1 - warmth], -1),
        "ambient": fill[:, None] * np.stack([1 - cool, np.ones_like(cool), 1 + cool], -1),
    }


def _wall(draws: SceneDraws) -> Floats:
    direction, offset = place.turn(draws.uniform(-0.09, 0.09)), draws.uniform(2.4, 4.2)
    return np.stack([direction[:, 1], direction[:, 0], offset], -1)
