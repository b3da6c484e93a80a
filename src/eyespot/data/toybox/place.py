"""Cameras, and solids that stand free of each other and in good view."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

SOLIDS = 4
CARD = SOLIDS
SLOTS = SOLIDS + 1
PROPOSALS = 64

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Per shape: half extents of a solid of size 1, and how much of its bounding rectangle its picture fills.
_EXTENTS = np.array(
    [[1.0, 1.0, 1.0], [0.85, 0.85, 0.9], [0.75, 0.75, 0.95], [0.9, 0.9, 1.15], [0.58, 0.58, 1.2], [0.85, 0.85, 1.05]]
)
_FILL = np.array([0.78, 0.8, 0.9, 0.55, 0.85, 0.55])
_SPHERE, _BOX, _PYRAMID = 0, 1, 5


@dataclass(frozen=True)
class Cameras:
    """Two cameras per scene: position [B, 2, 3], rotation [B, 2, 3, 3] (columns right, down, forward), focal [B, 2]."""

    position: Floats
    rotation: Floats
    focal: Floats


@dataclass(frozen=True)
class Card:
    """The card: present [B] bool, centre [B, 3], half extents [B, 3], turn [B, 2]."""

    present: NDArray[np.bool_]
    centre: Floats
    half: Floats
    turn: Floats


@dataclass(frozen=True)
class _Frame:
    """Upright rectangles in the two pictures, in picture widths: each [B, 2, ...]; `depth` is the centre's."""

    left: Floats
    right: Floats
    top: Floats
    bottom: Floats
    depth: Floats

    @property
    def area(self) -> Floats:
        return (self.right - self.left) * (self.bottom - self.top)

    def pick(self, which: Ints) -> _Frame:
        """One rectangle of the last axis per scene, [B, 2, 1]."""
        index = np.broadcast_to(which[:, None, None], (len(which), 2, 1))
        return _Frame(*(np.take_along_axis(side, index, -1) for side in vars(self).values()))


def turn(tangent: Floats) -> Floats:
    """[..., 2]: cosine and sine of the angle whose half has this tangent (1 is 90 degrees, 0.1 is 11.4)."""
    square = tangent * tangent
    return np.stack([(1 - square) / (1 + square), 2 * tangent / (1 + square)], -1)


def compose(first: Floats, second: Floats) -> Floats:
    """The turn by the sum of two angles."""
    c, s, c2, s2 = first[..., 0], first[..., 1], second[..., 0], second[..., 1]
    return np.stack([c * c2 - s * s2, s * c2 + c * s2], -1)


def look_at(
    target: Floats, distance: Floats, azimuth: Floats, elevation: Floats, roll: Floats, focal: Floats
) -> Cameras:
    """Cameras at `distance` that look at `target`; the angles are turns, azimuth 0 looks along y."""
    (ca, sa), (ce, se) = np.moveaxis(azimuth, -1, 0), np.moveaxis(elevation, -1, 0)
    forward = np.stack([sa * ce, ca * ce, -se], -1)
    level = np.stack([ca, -sa, np.zeros_like(ca)], -1)
    steep = np.stack([-sa * se, -ca * se, -ce], -1)
    c, s = roll[..., :1], roll[..., 1:]
    rotation = np.stack([c * level + s * steep, c * steep - s * level, forward], -1)
    return Cameras(target - distance[..., None] * forward, rotation, focal)


def half_extents(shape: Ints, size: Floats, stretch: Floats) -> Floats:
    """[B, 4, 3] half extents: `size` [B, 4] times the shape's proportions, stretched by `stretch` [B, 4, 3]."""
    round_ = (shape != _BOX)[..., None]
    radial = np.where(round_, stretch[..., :1], stretch[..., :2])
    upright = np.where(shape == _SPHERE, stretch[..., 0], stretch[..., 2])
    return _EXTENTS[shape] * size[..., None] * np.concatenate([radial, upright[..., None]], -1)


def place_solids(
    cameras: Cameras, card: Card, shape: Ints, half: Floats, yaw: Floats, x: Floats, y: Floats, wanted: Ints
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Stands the solids on the ground, one after the other, each on the first of its proposals that is good.

    Good means: free of everything that already stands, inside both pictures, hiding next to nothing of the card and
    little of the main object, not mostly hidden itself and clearly smaller in view than the main object. Later
    proposals are smaller, so that crowded scenes find room. A solid without a good proposal stays away, but for the
    main one and the last chance of a second one, which take the least bad free place.

    Args:
        cameras: The cameras of both pictures.
        card: The card.
        shape: [B, 4], which shape.
        half: [B, 4, 3], half extents in metres.
        yaw: [B, 4, 2], turns about the vertical.
        x: [B, 4, K], proposed positions in metres.
        y: [B, 4, K], the same.
        wanted: [B], how many solids the scene should get.

    Returns:
        Centres [B, 4, 3], half extents [B, 4, 3] and whether each solid stands [B, 4].
    """
    batch, _, proposals = x.shape
    scenes = np.arange(batch)
    shrink = 1 - 0.45 * np.arange(proposals) / proposals
    centre, final = np.zeros_like(half), np.zeros_like(half)
    standing = np.zeros((batch, SOLIDS), bool)
    card_frame, frames = _card_frame(cameras, card), list[_Frame]()
    for slot in range(SOLIDS):
        extents = half[:, slot, None] * (shrink[:, None] if slot else np.ones((proposals, 1)))
        points = np.stack([x[:, slot], y[:, slot], extents[..., 2]], -1)
        reach = _reach(shape[:, slot, None], extents)
        frame = _solid_frame(cameras, points, reach, extents[..., 2])
        touching = _touching_card(card, points, reach)
        hiding = np.where(card.present[:, None], _hiding(frame, card_frame, 0.05), 0)
        fault = _outside(frame) + hiding
        fill = _FILL[shape[:, slot]][:, None, None]
        for earlier in range(slot):
            other = _reach(shape[:, earlier], final[:, earlier])[:, None]
            gap = _distance(points, centre[:, earlier, None]) - reach - other - 0.05
            touching |= standing[:, earlier, None] & (gap < 0)
            faults = _hiding(frame, frames[earlier], 0.1 if earlier == 0 else 0.35)
            if earlier == 0:
                main_fill = _FILL[shape[:, 0]][:, None, None]
                faults += _over_both(frame.area * fill / (frames[0].area * main_fill) - 0.55)
                faults += _over_both(0.012 - frame.area * fill)
            fault += np.where(standing[:, earlier, None], faults, 0)
        best = (fault + 100 * touching).argmin(1)
        count, free = standing.sum(1), ~touching[scenes, best]
        needed = (count == 0) | ((count == 1) & free & (slot == SOLIDS - 1))
        standing[:, slot] = (count < wanted) & (needed | (free & (fault[scenes, best] == 0)))
        centre[:, slot], final[:, slot] = points[scenes, best], extents[scenes, best]
        frames.append(frame.pick(best))
    return centre, final, standing


def fit(cameras: Cameras, card: Card) -> Cameras:
    """The same cameras, their focal lengths shortened where the card would not fit into both pictures."""
    frame = _card_frame(cameras, card)
    extent = np.maximum(np.maximum(-frame.left, frame.right), np.maximum(-frame.top, frame.bottom)).max((1, 2))
    needed = np.where(card.present, np.minimum(1, 0.47 / extent), 1)
    return replace(cameras, focal=cameras.focal * needed[:, None])


def _reach(shape: Ints, half: Floats) -> Floats:
    """The radius of the footprint about its centre."""
    square = (shape == _BOX) | (shape == _PYRAMID)
    corner = np.sqrt(half[..., 0] ** 2 + half[..., 1] ** 2)
    return np.where(square, corner, half[..., 0])


def _distance(points: Floats, others: Floats) -> Floats:
    return np.sqrt((points[..., 0] - others[..., 0]) ** 2 + (points[..., 1] - others[..., 1]) ** 2)


def _solid_frame(cameras: Cameras, centre: Floats, reach: Floats, height: Floats) -> _Frame:
    """The rectangle around the picture of an upright solid: centre [B, K, 3], reach and half height [B, K]."""
    right, down, forward = _to_camera(cameras, centre)
    steep, lean = -cameras.rotation[:, :, 2, 1, None], -cameras.rotation[:, :, 2, 2, None]
    rise = height[:, None] * steep + reach[:, None] * lean
    scale = cameras.focal[..., None] / forward
    wide = reach[:, None]
    return _Frame((right - wide) * scale, (right + wide) * scale, (down - rise) * scale, (down + rise) * scale, forward)


def _card_frame(cameras: Cameras, card: Card) -> _Frame:
    corners = []
    for x, z in ((-1, -1), (1, -1), (-1, 1), (1, 1)):
        along = x * card.half[:, :1] * card.turn
        corners.append(card.centre + np.concatenate([along, z * card.half[:, 2:]], -1))
    right, down, forward = _to_camera(cameras, np.stack(corners, 1))
    scale = cameras.focal[..., None] / forward
    u, v = right * scale, down * scale
    nearest = forward.min(-1)
    return _Frame(*(side[..., None] for side in (u.min(-1), u.max(-1), v.min(-1), v.max(-1), nearest)))


def _to_camera(cameras: Cameras, points: Floats) -> tuple[Floats, Floats, Floats]:
    """Camera coordinates, each [B, 2, K], of points [B, K, 3]."""
    offset = points[:, None] - cameras.position[:, :, None]
    axes = cameras.rotation[:, :, None]
    x, y, z = (
        offset[..., 0] * axes[..., 0, i] + offset[..., 1] * axes[..., 1, i] + offset[..., 2] * axes[..., 2, i]
        for i in range(3)
    )
    return x, y, z


def _over_both(excess: Floats) -> Floats:
    """The larger excess of the two pictures, 0 where there is none: [B, 2, K] to [B, K]."""
    return np.maximum(excess.max(1), 0)


def _outside(frame: _Frame) -> Floats:
    margin = 0.485
    sides = (-margin - frame.left, frame.right - margin, -margin - frame.top, frame.bottom - margin)
    return sum((_over_both(side) for side in sides), start=np.zeros_like(frame.left[:, 0]))


def _overlap(first: _Frame, second: _Frame) -> Floats:
    wide = np.minimum(first.right, second.right) - np.maximum(first.left, second.left)
    high = np.minimum(first.bottom, second.bottom) - np.maximum(first.top, second.top)
    return np.maximum(wide, 0) * np.maximum(high, 0)


def _hiding(frame: _Frame, other: _Frame, allowed: float) -> Floats:
    """How far the new solid hides more than `allowed` of the other, or is itself hidden by more than 0.35 of it."""
    overlap = _overlap(frame, other)
    hides = np.where(frame.depth < other.depth, overlap / other.area - allowed, overlap / frame.area - 0.35)
    return _over_both(hides)


def _touching_card(card: Card, points: Floats, reach: Floats) -> NDArray[np.bool_]:
    offset = points[..., :2] - card.centre[:, None, :2]
    along = offset[..., 0] * card.turn[:, :1] + offset[..., 1] * card.turn[:, 1:]
    across = offset[..., 1] * card.turn[:, :1] - offset[..., 0] * card.turn[:, 1:]
    beyond = np.maximum(np.abs(along) - card.half[:, :1], 0)
    return card.present[:, None] & (np.sqrt(beyond * beyond + across * across) < reach + 0.08)
