"""Boundaries as lines of one pixel: of class maps, and of what depth and normals show."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot.data.labelled.thinning import thinned_maps
from eyespot.dense_tasks import IGNORE

JUMP = 0.05
"""Share of the smaller depth by which two neighbours must differ to lie on two surfaces."""
GAP = 6
"""Pixels without depth that may lie between two such neighbours: depth cameras see nothing in an object's shadow."""
CREASE = 40.0
"""Degrees between the mean normals on both sides of a crease."""
SIDE = 7
"""Side of the squares in pixels over which these means are taken: single normals of a depth camera are noisy."""
REACH = 5
"""How far from a crease the centres of the two squares lie, in pixels."""
SHORTEST = 8
"""Lines of fewer pixels are taken for noise."""

_NEIGHBOURS = ((0, 1), (2, 1), (1, 0), (1, 2))
"""Up, down, left and right in a map with a border of one pixel."""


def thinned(lines: Tensor) -> Tensor:
    """Lines of any width [H, W] bool as lines of one pixel, bool, by Guo and Hall's thinning."""
    return torch.from_numpy(thinned_maps(lines.numpy()[None])[0])


def class_boundaries(classes: Tensor, ignored: int | None = IGNORE) -> Tensor:
    """Where classes meet, as PASCAL-Context's boundaries are made: the Laplacian is not zero, thinned.

    The Laplacian of the class *numbers* is taken as it is published, with the picture mirrored at its border. So a
    class between two others whose numbers differ from its own by the same amount up and down has no boundary there.

    Args:
        classes: [H, W], integers.
        ignored: class of pixels that count for nothing: no boundary runs along them (ours), and they are `IGNORE` in
            the result. None if every number is a class.

    Returns:
        uint8 [H, W]: 1 boundary, 0 none, `IGNORE`.
    """
    values = classes.numpy().astype(np.int64)
    known = np.ones(values.shape, bool) if ignored is None else values != ignored
    around, around_known = np.pad(values, 1, mode="reflect"), np.pad(known, 1, mode="reflect")
    laplacian = np.zeros_like(values)
    for top, left in _NEIGHBOURS:
        there = np.s_[top : top + values.shape[0], left : left + values.shape[1]]
        laplacian += np.where(known & around_known[there], around[there] - values, 0)
    return _labelled(thinned(torch.from_numpy(laplacian != 0)), torch.from_numpy(known))


def surface_boundaries(depth: Tensor, normals: Tensor) -> Tensor:
    """Where surfaces end or bend (ours): jumps of the depth and creases of the normals, thinned.

    A jump is between two neighbours in a row or column, or with at most `GAP` unmeasured pixels between them, whose
    depths differ by more than `JUMP` of the smaller one; the nearer of the two is boundary. A pixel is on a crease if
    the mean normals of the squares to both sides of it differ by more than `CREASE` degrees and no jump is near. Short
    lines are left out.

    Args:
        depth: [H, W] metres, 0 = no measurement.
        normals: [3, H, W] unit vectors, 0 = unknown; as `eyespot.data.labelled.geometry.depth_to_normals` gives them.

    Returns:
        uint8 [H, W]: 1 boundary, 0 none, `IGNORE` where nothing is measured and no boundary was found.
    """
    jumps = _jumps(depth) | _jumps(depth.T).T
    means = _mean_normals(normals)
    creases = _creases(means) | _creases(means.mT).mT
    near = F.max_pool2d(jumps[None].float(), 2 * REACH + 1, stride=1, padding=REACH)[0] > 0
    return _labelled(_long(thinned(jumps | (creases & ~near))), depth > 0)


def _labelled(lines: Tensor, known: Tensor) -> Tensor:
    labels = lines.to(torch.uint8)
    labels[~(known | lines)] = IGNORE
    return labels


def _jumps(depth: Tensor) -> Tensor:
    """[H, W] bool: pixels nearer by a jump than the next measured one to their left or right."""
    columns = torch.arange(depth.shape[1])
    measured = depth > 0
    last = torch.where(measured, columns, -1).cummax(1).values  # column of the last measured pixel up to each one
    before = F.pad(last[:, :-1], (1, 0), value=-1)
    earlier = depth.gather(1, before.clamp(min=0))
    compared = measured & (before >= 0) & (columns - before <= GAP + 1)
    nearer_here = compared & (earlier > depth * (1 + JUMP))
    nearer_there = compared & (depth > earlier * (1 + JUMP))
    found = torch.zeros(depth.shape, dtype=torch.int64)
    found.scatter_add_(1, before.clamp(min=0), nearer_there.long())
    return nearer_here | (found > 0)


def _mean_normals(normals: Tensor) -> Tensor:
    """[3, H, W]: directions of the means over squares around each pixel, 0 where less than half of one is known."""
    total = F.avg_pool2d(normals, SIDE, stride=1, padding=SIDE // 2)
    known = F.avg_pool2d(normals.any(0)[None].float(), SIDE, stride=1, padding=SIDE // 2)
    return torch.where(known >= 0.5, F.normalize(total, dim=0), 0.0)


def _creases(means: Tensor) -> Tensor:
    """[H, W] bool: pixels between whose left and right the surface bends."""
    left, right = means[:, :, : -2 * REACH], means[:, :, 2 * REACH :]
    known = left.any(0) & right.any(0)
    bent = (left * right).sum(0) < math.cos(math.radians(CREASE))
    return F.pad(known & bent, (REACH, REACH))


def _long(lines: Tensor) -> Tensor:
    """Lines [H, W] bool without those of fewer than `SHORTEST` connected pixels."""
    from scipy.ndimage import label  # a large library: loaded only where it is needed

    numbers, _ = label(lines.numpy(), structure=np.ones((3, 3)))
    kept = np.bincount(numbers.ravel()) >= SHORTEST
    kept[0] = False
    return torch.from_numpy(kept[numbers])
