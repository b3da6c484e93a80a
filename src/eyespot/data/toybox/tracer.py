"""The ray caster: nearest hits, cast shadows and shading, for a batch of scenes with P rays each.

Dense arithmetic is done once per ray; a solid's exact intersection only on the rays that pass through the sphere
around it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eyespot.data.toybox import solids
from eyespot.data.toybox.place import CARD, SLOTS, SOLIDS
from eyespot.data.toybox.scenes import GROUND, SHAPES, SURFACES, WALL, World
from eyespot.data.toybox.solids import Vector, dot
from eyespot.data.toybox.textures import texture_bank

_CAPSULE, _CYLINDER = SHAPES.index("capsule"), SHAPES.index("cylinder")
_ROUND = torch.tensor([name in ("sphere", "cylinder", "cone", "capsule") for name in SHAPES])
_SAMPLE_WIDTH = 0.6  # of a pixel: what one of several samples should average over
_FAR = 1e4


@dataclass(frozen=True)
class Rays:
    """P rays from one camera per scene.

    Attributes:
        origin: [B, 3], metres.
        direction: three of [B, P], with a forward part of 1, so that the ray parameter is the depth.
    """

    origin: Tensor
    direction: Vector


@dataclass(frozen=True)
class Hits:
    """What rays meet first.

    Attributes:
        t: [B, P] ray parameter, the depth along the optical axis in metres.
        surface: [B, P] int32, slot 0 to 4, ground 5 or wall 6.
        point: three of [B, P], metres in the world.
        normal: three of [B, P], unit, in the world.
        flat: [n] positions in the flattened [B, P] of the hits on solids and the card.
        pair: [n] their scene * 5 + slot.
        local: three of [n], the hit in the solid's unit frame.
    """

    t: Tensor
    surface: Tensor
    point: Vector
    normal: Vector
    flat: Tensor
    pair: Tensor
    local: Vector


def camera_rays(world: World, camera: int, x: Tensor, y: Tensor) -> Rays:
    """The rays through picture positions.

    Args:
        world: B scenes.
        camera: 0 or 1.
        x: [P] or [B, P], horizontal positions in picture widths from the centre.
        y: The same, downwards.

    Returns:
        The rays.
    """
    across, down = x / world.focal[:, camera, None], y / world.focal[:, camera, None]
    axes = world.rotation[:, camera, :, :, None]
    u, v, w = (axes[:, i, 0] * across + axes[:, i, 1] * down + axes[:, i, 2] for i in range(3))
    return Rays(world.position[:, camera], (u, v, w))


class _Pairs:
    """The constants of every (scene, slot) pair, [B * 5] each, from which candidates gather."""

    def __init__(self, world: World) -> None:
        self.shape = world.shape.flatten()
        self.cos, self.sin = _columns(world.turn)
        self.centre = _columns(world.centre)
        x, y, z = _columns(world.half)
        capsule = self.shape == _CAPSULE
        self.straight = torch.where(capsule, z / x - 1, 0.0)
        self.inverse = [1 / x, 1 / y, 1 / torch.where(capsule, x, z)]

    def turned(self, pair: Tensor, vector: Vector) -> Vector:
        """World directions in the solid's unit frame."""
        c, s = _pick(self.cos, pair), _pick(self.sin, pair)
        a, b, d = (_pick(inverse, pair) for inverse in self.inverse)
        return (c * vector[0] + s * vector[1]) * a, (c * vector[1] - s * vector[0]) * b, vector[2] * d

    def moved(self, pair: Tensor, point: Vector) -> Vector:
        """World points in the solid's unit frame."""
        x, y, z = (p - _pick(c, pair) for p, c in zip(point, self.centre, strict=True))
        return self.turned(pair, (x, y, z))

    def normal(self, pair: Tensor, local: Vector) -> Vector:
        """Unit normals in the world at surface points in the unit frame."""
        shape, straight = _pick(self.shape, pair), _pick(self.straight, pair)
        found = [torch.zeros_like(local[0]) for _ in range(3)]
        for index in range(len(SHAPES)):
            chosen = (shape == index).nonzero().squeeze(1)
            part = solids.normal(index, _take(local, chosen), _pick(straight, chosen))
            for axis in range(3):
                found[axis].index_copy_(0, chosen, part[axis])
        # A normal maps with the inverse of the scale.
        x, y, z = (component * _pick(inverse, pair) for component, inverse in zip(found, self.inverse, strict=True))
        c, s = _pick(self.cos, pair), _pick(self.sin, pair)
        x, y = c * x - s * y, s * x + c * y
        length = 1 / (x * x + y * y + z * z).sqrt()
        return x * length, y * length, z * length

    def interval(self, pair: Tensor, origin: Vector, direction: Vector) -> solids.Interval:
        """Where world rays enter and leave the solid of each pair, [n] each."""
        o, d = self.moved(pair, origin), self.turned(pair, direction)
        # Starting where the ray passes the centre keeps float32 exact to a few micrometres.
        shift = -dot(o, d) / dot(d, d)
        o = (o[0] + shift * d[0], o[1] + shift * d[1], o[2] + shift * d[2])
        shape, straight = _pick(self.shape, pair), _pick(self.straight, pair)
        enter, leave = torch.empty_like(shift), torch.empty_like(shift)
        for index in range(len(SHAPES)):
            chosen = (shape == index).nonzero().squeeze(1)
            part = solids.interval(index, _take(o, chosen), _take(d, chosen), _pick(straight, chosen))
            enter.index_copy_(0, chosen, part[0])
            leave.index_copy_(0, chosen, part[1])
        return enter + shift, leave + shift


def _columns(table: Tensor) -> list[Tensor]:
    """The columns of [B, 5, n], each as a contiguous [B * 5]."""
    return [column.contiguous() for column in table.flatten(0, 1).unbind(-1)]


def _pick(values: Tensor, index: Tensor) -> Tensor:
    # Several times faster than values[index].
    return values.view(-1).index_select(0, index)


def _take(vector: Vector, index: Tensor) -> Vector:
    return _pick(vector[0], index), _pick(vector[1], index), _pick(vector[2], index)


def cast(world: World, rays: Rays) -> Hits:
    """What each ray meets first; always something, because the wall has no end."""
    d = rays.direction
    batch, count = d[0].shape
    pairs = _Pairs(world)
    origin = rays.origin[:, 0, None], rays.origin[:, 1, None], rays.origin[:, 2, None]

    t_ground = torch.where(d[2] < -1e-6, -origin[2] / d[2], _FAR)
    nx, ny, offset = (world.wall[:, index, None] for index in range(3))
    t_wall = (offset - nx * origin[0] - ny * origin[1]) / (nx * d[0] + ny * d[1])
    t = torch.minimum(t_ground, t_wall)
    surface = torch.where(t_wall < t_ground, WALL, GROUND).int()

    candidates = _near_solids(world, rays).view(-1).nonzero().squeeze(1)
    pair = candidates // count
    flat = candidates - (pair - pair // SLOTS) * count
    start = _take(_unbind(rays.origin), pair // SLOTS)
    enter, leave = pairs.interval(pair, start, _take(d, flat))
    met = torch.full((batch * SLOTS * count,), torch.inf)
    met.index_copy_(0, candidates, torch.where(enter < leave, enter, torch.inf))
    met = met.view(batch, SLOTS, count)
    for slot in range(SLOTS):
        closer = met[:, slot] < t
        t = torch.where(closer, met[:, slot], t)
        surface.masked_fill_(closer, slot)

    point = origin[0] + t * d[0], origin[1] + t * d[1], origin[2] + t * d[2]
    flat = (surface.view(-1) < SLOTS).nonzero().squeeze(1)
    pair = flat // count * SLOTS + _pick(surface, flat)
    local = pairs.moved(pair, _take(point, flat))
    on_wall = surface == WALL
    normal = (torch.where(on_wall, -nx, 0.0), torch.where(on_wall, -ny, 0.0), (surface == GROUND).float())
    for whole, part in zip(normal, pairs.normal(pair, local), strict=True):
        whole.view(-1).index_copy_(0, flat, part)
    return Hits(t, surface, point, normal, flat, pair, local)


def _unbind(vectors: Tensor) -> Vector:
    """[n, 3] as three contiguous [n]."""
    return vectors[:, 0].contiguous(), vectors[:, 1].contiguous(), vectors[:, 2].contiguous()


def _near_solids(world: World, rays: Rays) -> Tensor:
    """[B, 5, P] bool: whether the ray passes through the sphere around the slot's solid."""
    d = rays.direction
    square = dot(d, d)
    offset = world.centre - rays.origin[:, None]
    away = (offset * offset)[..., 0] + (offset * offset)[..., 1] + (offset * offset)[..., 2]
    least = away - world.radius * world.radius
    near = torch.empty(d[0].shape[0], SLOTS, d[0].shape[1], dtype=torch.bool)
    for slot in range(SLOTS):
        x, y, z = (offset[:, slot, axis, None] for axis in range(3))
        along = x * d[0] + y * d[1] + z * d[2]
        torch.ge(along * along, least[:, slot, None] * square, out=near[:, slot])
    return near & world.present[:, :, None]


def lit(world: World, hits: Hits, facing: Tensor) -> Tensor:
    """Whether the light reaches each hit.

    Args:
        world: B scenes.
        hits: The hits.
        facing: [B, P], normal times light; where it is not positive the surface turns away and is not tested.

    Returns:
        [B, P] float, 1 in the light and 0 in the shadow of another solid (a convex one cannot shade its own lit side).
    """
    batch, count = facing.shape
    light = world.light
    # Two axes across the light: a point is shaded only by solids whose sphere it lies behind in this plane.
    first = torch.stack([light[:, 1], -light[:, 0], torch.zeros(batch)], 1)
    first = first / (first[:, :1] * first[:, :1] + first[:, 1:2] * first[:, 1:2]).sqrt()
    second = torch.stack(
        [
            light[:, 1] * first[:, 2] - light[:, 2] * first[:, 1],
            light[:, 2] * first[:, 0] - light[:, 0] * first[:, 2],
            light[:, 0] * first[:, 1] - light[:, 1] * first[:, 0],
        ],
        1,
    )
    at = [_along(hits.point, axis) for axis in (first, second, light)]
    middle = world.centre[..., 0], world.centre[..., 1], world.centre[..., 2]
    centre = [_along(middle, axis) for axis in (first, second, light)]
    behind = torch.empty(batch, SLOTS, count, dtype=torch.bool)
    lit_side = facing > 0
    for slot in range(SLOTS):
        a, b = at[0] - centre[0][:, slot, None], at[1] - centre[1][:, slot, None]
        radius = world.radius[:, slot, None]
        inside = (a * a + b * b < radius * radius) & (at[2] < centre[2][:, slot, None] + radius)
        behind[:, slot] = inside & lit_side & (hits.surface != slot)
    behind &= world.present[:, :, None]
    candidates = behind.view(-1).nonzero().squeeze(1)
    pair = candidates // count
    scene = pair // SLOTS
    flat = candidates - (pair - scene) * count
    enter, leave = _Pairs(world).interval(pair, _take(hits.point, flat), _take(_unbind(light), scene))
    bright = torch.ones(batch * count)
    bright.index_fill_(0, flat[(enter < leave) & (leave > 1e-4)], 0.0)
    return bright.view(batch, count)


def _along(vector: Vector, axis: Tensor) -> Tensor:
    return vector[0] * axis[:, 0, None] + vector[1] * axis[:, 1, None] + vector[2] * axis[:, 2, None]


def shade(world: World, rays: Rays, hits: Hits, camera: int, pixel: float) -> Tensor:
    """The light that comes back along each ray.

    Args:
        world: B scenes.
        rays: The rays.
        hits: What they meet.
        camera: 0 or 1.
        pixel: Width of a pixel in picture widths.

    Returns:
        [B, 3, P] linear colours, not negative; above 1 in highlights.
    """
    facing = _along(hits.normal, world.light)
    bright = lit(world, hits, facing)
    direct = facing.clamp(min=0) * bright
    indirect = (0.7 + 0.3 * hits.normal[2]) * _openness(world, hits)
    gloss = torch.zeros_like(direct)
    gloss.view(-1).index_copy_(0, hits.flat, _highlights(world, rays, hits) * _pick(bright, hits.flat))
    index = (hits.surface + torch.arange(len(world), dtype=torch.int32)[:, None] * SURFACES).view(-1)
    value = _texture_value(world, rays, hits, pixel / world.focal[:, camera], index)
    colours = []
    for channel in range(3):
        table = world.albedo[..., channel].reshape(-1, 2)
        base, mark = (_pick(table[:, side].contiguous(), index).view(value.shape) for side in (0, 1))
        received = world.sun[:, channel, None] * direct + world.ambient[:, channel, None] * indirect
        colours.append((base + value * (mark - base)) * received + gloss)
    return torch.stack(colours, 1)


def _openness(world: World, hits: Hits) -> Tensor:
    """How much of the ambient light reaches the ground close to the solids (ours: a soft disc under each)."""
    open_ = torch.ones_like(hits.t)
    on_ground = hits.surface == GROUND
    for slot in range(SOLIDS):
        x, y = (hits.point[axis] - world.centre[:, slot, axis, None] for axis in (0, 1))
        reach = 1.7 * torch.maximum(world.half[:, slot, 0], world.half[:, slot, 1])[:, None]
        near = (1 - (x * x + y * y) / (reach * reach)).clamp(min=0)
        open_ -= near * near * (0.9 * world.present[:, slot, None])
    return torch.where(on_ground, open_.clamp(min=0.25), 1.0)


def _highlights(world: World, rays: Rays, hits: Hits) -> Tensor:
    """[n], Blinn's half-vector highlight on the solids (not the card)."""
    flat, scene = hits.flat, hits.pair // SLOTS
    d, light = _take(rays.direction, flat), _take(_unbind(world.light), scene)
    length = 1 / dot(d, d).sqrt()
    h = light[0] - d[0] * length, light[1] - d[1] * length, light[2] - d[2] * length
    cosine = dot(h, _take(hits.normal, flat)) / dot(h, h).sqrt()
    power = cosine.clamp(min=0)
    for _ in range(5):
        power = power * power
    return 0.35 * power * (hits.pair % SLOTS != CARD)


def _texture_value(world: World, rays: Rays, hits: Hits, pixel: Tensor, index: Tensor) -> Tensor:
    """[B, P], the texture's value at each hit; `pixel` [B] is a pixel's width at depth 1, `index` the surface's row."""
    on_wall = hits.surface == WALL
    x, y, z = hits.point
    c, s = world.ground_turn[:, :1], world.ground_turn[:, 1:]
    u = torch.where(on_wall, x, c * x + s * y)
    v = torch.where(on_wall, -z, s * x - c * y)
    period = _pick(world.period, index)
    scale = (1 / period).view(u.shape)
    u, v = u * scale, v * scale
    d = rays.direction
    cosine = (dot(d, hits.normal).abs() / dot(d, d).sqrt()).clamp(min=0.3)
    footprint = _SAMPLE_WIDTH * pixel[:, None] * hits.t / cosine * scale
    u_solid, v_solid, stretch = _solid_uv(world, hits)
    u.view(-1).index_copy_(0, hits.flat, u_solid)
    v.view(-1).index_copy_(0, hits.flat, v_solid)
    footprint.view(-1).index_copy_(0, hits.flat, _pick(footprint, hits.flat) * stretch)
    swapped = _pick(world.swap, index).view(u.shape)
    u, v = torch.where(swapped, v, u), torch.where(swapped, u, v)
    layer = _pick(world.texture.int(), index).view(u.shape)
    return texture_bank().lookup(layer, u, v, footprint)


def _solid_uv(world: World, hits: Hits) -> tuple[Tensor, Tensor, Tensor]:
    """Texture positions of the hits on solids and card, [n] each, and by how much a tile is smaller than its period.

    Round solids are wrapped by angle and height with a whole number of tiles; flat faces show their own two axes.
    """
    pair, scene = hits.pair, hits.pair // SLOTS
    slot = pair - scene * SLOTS
    half_x, half_y, half_z = (_pick(column, pair) for column in _columns(world.half))
    shape = _pick(world.shape, pair)
    period = _pick(world.period, scene * SURFACES + slot)
    x, y = hits.local[0] * half_x, hits.local[1] * half_y
    z = hits.local[2] * torch.where(shape == _CAPSULE, half_x, half_z)
    c, s = (_pick(column, pair) for column in _columns(world.turn))
    nx, ny, nz = _take(hits.normal, hits.flat)
    side_x, side_y, top = (c * nx + s * ny).abs(), (c * ny - s * nx).abs(), nz.abs()
    flat_top = (top > side_x) & (top > side_y)
    u = torch.where(flat_top | (side_y >= side_x), x, y)
    v = torch.where(flat_top, y, z)

    around = _pick(_ROUND, shape) & ~((shape == _CYLINDER) & (top > 0.5))
    tiles = (6.2831853 * half_x / period).round().clamp(min=2)
    u = torch.where(around, _turns(x, y) * tiles, u / period)
    v = torch.where(around, z, v) / -period

    is_card = slot == CARD
    front = is_card & (hits.local[1] < -0.99)
    u = torch.where(is_card, (hits.local[0] + 1) / 2 * front, u)
    v = torch.where(is_card, (1 - hits.local[2]) / 2 * front, v)
    stretch = torch.where(is_card, 0.5 / half_z, torch.ones_like(u))
    return u, v, stretch


def _turns(x: Tensor, y: Tensor) -> Tensor:
    """atan2(y, x) / 2 pi by a polynomial (Abramowitz and Stegun 4.4.49): elementwise exact, unlike the library's."""
    ax, ay = x.abs(), y.abs()
    r = torch.minimum(ax, ay) / torch.maximum(ax, ay).clamp(min=1e-9)
    q = r * r
    angle = r * (0.9998660 + q * (-0.3302995 + q * (0.1801410 + q * (-0.0851330 + q * 0.0208351)))) / 6.2831853
    angle = torch.where(ay > ax, 0.25 - angle, angle)
    angle = torch.where(x < 0, 0.5 - angle, angle)
    return torch.where(y < 0, -angle, angle)
