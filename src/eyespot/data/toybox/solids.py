"""The solids' geometry: where a ray enters and leaves each, and the normal at a point of its surface.

Every solid is convex and given in its own unit frame, in which it spans [-1, 1] along each axis (the capsule has
radius 1 and a straight part of half length `straight`). Rays are flat tensors of candidates; an affine map of a ray
keeps its parameter t, so the results hold in the world as they are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Vector = tuple[Tensor, Tensor, Tensor]
Interval = tuple[Tensor, Tensor]

_TINY = 1e-9


def dot(a: Vector, b: Vector) -> Tensor:
    """The inner product of two vectors given by components."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def interval(shape: int, origin: Vector, direction: Vector, straight: Tensor) -> Interval:
    """The parameters t between which rays are inside a solid.

    Args:
        shape: Index in `SHAPES`.
        origin: Ray origins in the unit frame, [n] each.
        direction: Ray directions in the unit frame, [n] each, of any length.
        straight: [n], half length of the capsule's straight part; other shapes do not look at it.

    Returns:
        (enter, leave), [n] each; enter > leave where the ray misses.
    """
    return _INTERVALS[shape](origin, direction, straight)


def normal(shape: int, point: Vector, straight: Tensor) -> Vector:
    """The outward normal (of any length) in the unit frame at surface points in the unit frame, [n] each.

    Cone and pyramid stand on their base, which is never seen: points there get the normal of the sides.
    """
    return _NORMALS[shape](point, straight)


def _nonzero(value: Tensor) -> Tensor:
    return torch.where(value.abs() < _TINY, _TINY, value)


def _meet(a: Interval, b: Interval) -> Interval:
    return torch.maximum(a[0], b[0]), torch.minimum(a[1], b[1])


def _slab(origin: Tensor, direction: Tensor) -> Interval:
    """Where -1 <= origin + t * direction <= 1."""
    inverse = 1 / _nonzero(direction)
    a, b = (-1 - origin) * inverse, (1 - origin) * inverse
    return torch.minimum(a, b), torch.maximum(a, b)


def _between_roots(a: Tensor, half_b: Tensor, c: Tensor) -> Interval:
    """Where a t^2 + 2 half_b t + c <= 0, for a > 0."""
    discriminant = half_b * half_b - a * c
    root, inverse = discriminant.clamp(min=0).sqrt(), 1 / _nonzero(a)
    enter = torch.where(discriminant < 0, torch.inf, (-half_b - root) * inverse)
    return enter, (root - half_b) * inverse


def _sphere(o: Vector, d: Vector, straight: Tensor) -> Interval:
    return _between_roots(dot(d, d), dot(o, d), dot(o, o) - 1)


def _box(o: Vector, d: Vector, straight: Tensor) -> Interval:
    return _meet(_meet(_slab(o[0], d[0]), _slab(o[1], d[1])), _slab(o[2], d[2]))


def _tube(o: Vector, d: Vector) -> Interval:
    return _between_roots(d[0] * d[0] + d[1] * d[1], o[0] * d[0] + o[1] * d[1], o[0] * o[0] + o[1] * o[1] - 1)


def _cylinder(o: Vector, d: Vector, straight: Tensor) -> Interval:
    return _meet(_tube(o, d), _slab(o[2], d[2]))


def _cone(o: Vector, d: Vector, straight: Tensor) -> Interval:
    # Apex at z = 1, base radius 1 at z = -1: x^2 + y^2 <= ((1 - z) / 2)^2.
    h, k = (1 - o[2]) / 2, -d[2] / 2
    a = _nonzero(d[0] * d[0] + d[1] * d[1] - k * k)
    half_b = o[0] * d[0] + o[1] * d[1] - h * k
    c = o[0] * o[0] + o[1] * o[1] - h * h
    discriminant = half_b * half_b - a * c
    root = discriminant.clamp(min=0).sqrt()
    first, second = (-half_b - root) / a, (root - half_b) / a
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    # A ray steeper than the slope is inside both halves of the double cone; the lower one lies where the ray goes down.
    steep, sinking = a < 0, d[2] < 0
    enter = torch.where(steep, torch.where(sinking, high, -torch.inf), low)
    leave = torch.where(steep, torch.where(sinking, torch.inf, low), high)
    enter = torch.where(discriminant < 0, torch.inf, enter)
    return _meet((enter, leave), _slab(o[2], d[2]))


def _capsule(o: Vector, d: Vector, straight: Tensor) -> Interval:
    length = straight.clamp(min=_TINY)
    enter, leave = _meet(_tube(o, d), _slab(o[2] / length, d[2] / length))
    missed = enter > leave
    enter, leave = torch.where(missed, torch.inf, enter), torch.where(missed, -torch.inf, leave)
    for end in (straight, -straight):
        first, last = _sphere((o[0], o[1], o[2] - end), d, straight)
        hit = first <= last
        enter = torch.where(hit, torch.minimum(enter, first), enter)
        leave = torch.where(hit, torch.maximum(leave, last), leave)
    return enter, leave


def _pyramid(o: Vector, d: Vector, straight: Tensor) -> Interval:
    # Apex at z = 1: |x| and |y| at most (1 - z) / 2.
    span = _slab(o[2], d[2])
    for axis in (0, 1):
        for sign in (1, -1):
            height = sign * o[axis] + (o[2] - 1) / 2
            rate = _nonzero(sign * d[axis] + d[2] / 2)
            crossing = -height / rate
            inside = torch.where(rate > 0, -torch.inf, crossing), torch.where(rate > 0, crossing, torch.inf)
            span = _meet(span, inside)
    return span


def _sphere_normal(p: Vector, straight: Tensor) -> Vector:
    return p


def _box_normal(p: Vector, straight: Tensor) -> Vector:
    x, y, z = (component.abs() for component in p)
    along_z = (z >= x) & (z >= y)
    along_x = (x >= y) & ~along_z
    along_y = ~(along_x | along_z)
    return p[0].sign() * along_x, p[1].sign() * along_y, p[2].sign() * along_z


def _cylinder_normal(p: Vector, straight: Tensor) -> Vector:
    cap = p[2] * p[2] >= p[0] * p[0] + p[1] * p[1]
    return p[0] * ~cap, p[1] * ~cap, p[2].sign() * cap


def _cone_normal(p: Vector, straight: Tensor) -> Vector:
    return p[0], p[1], (1 - p[2]).clamp(min=1e-6) / 4


def _capsule_normal(p: Vector, straight: Tensor) -> Vector:
    return p[0], p[1], p[2] - p[2].clamp(-straight, straight)


def _pyramid_normal(p: Vector, straight: Tensor) -> Vector:
    side = p[0].abs() >= p[1].abs()
    return p[0].sign() * side, p[1].sign() * ~side, torch.full_like(p[2], 0.5)


_INTERVALS: list[Callable[[Vector, Vector, Tensor], Interval]] = [_sphere, _box, _cylinder, _cone, _capsule, _pyramid]
_NORMALS: list[Callable[[Vector, Tensor], Vector]] = [
    _sphere_normal,
    _box_normal,
    _cylinder_normal,
    _cone_normal,
    _capsule_normal,
    _pyramid_normal,
]
