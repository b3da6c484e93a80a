"""How alike the teachers are before anybody learns from them: CKA, and how well one predicts the other."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot.distill.committee import Committee
from eyespot.encoders import Encoder
from eyespot.encoders.taps import STAGES, Taps
from eyespot.evaluate.probing.similarity import RidgeData, debiased_cka, ridge_r2
from eyespot.features import Features
from eyespot.pictures import as_unit_floats, resize_pictures

Matrix = dict[str, dict[str, float]]
"""Numbers by row and column, each named after a teacher."""

FINEST_GRID = 7
"""Largest side of the grid on which patch maps are compared: cells of one picture resemble each other anyway."""


@dataclass(frozen=True)
class Similarity:
    """What a committee's teachers have in common on the same pictures.

    Attributes:
        pictures: how many.
        grid: (rows, columns) onto which all patch maps were averaged.
        summaries: CKA of summaries, debiased; 1 for equal up to rotation and scale, 0 for independent.
        patches: CKA of patches, pictures x cells as samples.
        prediction: R² of a ridge regression from the row's patches to the column's, on held-out pictures.
        levels: CKA of inner patch maps by level, "1" (shallow) to "4", among teachers that show inner layers (files do
            not); empty for fewer than two of them.
    """

    pictures: int
    grid: tuple[int, int]
    summaries: Matrix
    patches: Matrix
    prediction: Matrix
    levels: dict[str, Matrix] = field(default_factory=dict)


def similarity(seen: Mapping[str, Features], levels: Mapping[str, Sequence[Tensor]] | None = None) -> Similarity:
    """Compares what teachers say about the same pictures.

    Patch maps are averaged onto the coarsest teacher's grid, at most 7 cells a side.

    Args:
        seen: features by teacher.
        levels: by teacher, maps [N, D, h, w] of four inner levels; see `inner_levels`.

    Raises:
        ValueError: fewer than two teachers, other numbers of pictures, or fewer than four.
    """
    if len(seen) < 2:
        raise ValueError(f"teachers can only be compared with one another, got {len(seen)}; name at least two")
    grid = coarsest_grid(seen.values())
    maps = {name: averaged(features.patches, grid) for name, features in seen.items()}
    splits = {name: RidgeData.by_picture(patches) for name, patches in maps.items()}
    prediction = {
        name: ridge_r2(split, {other: target for other, target in splits.items() if other != name})
        for name, split in splits.items()
    }
    return Similarity(
        pictures=len(next(iter(maps.values()))),
        grid=grid,
        summaries=_cka({name: features.summary for name, features in seen.items()}),
        patches=_cka({name: _rows(patches) for name, patches in maps.items()}),
        prediction=prediction,
        levels=_level_cka(levels or {}, grid),
    )


def coarsest_grid(seen: Iterable[Features]) -> tuple[int, int]:
    """The largest grid onto which all these patch maps can be averaged, at most 7 cells a side."""
    grids = [features.grid for features in seen]
    rows, columns = (min(sides) for sides in zip(*grids, strict=True))
    return min(rows, FINEST_GRID), min(columns, FINEST_GRID)


def averaged(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """A map [N, D, h, w] averaged onto another grid, in float32."""
    return patches.float() if patches.shape[2:] == grid else F.adaptive_avg_pool2d(patches.float(), grid)


def _rows(patches: Tensor) -> Tensor:
    """[N, D, h, w] -> [N h w, D]."""
    return patches.movedim(1, -1).flatten(0, 2)


def _cka(features: Mapping[str, Tensor]) -> Matrix:
    """CKA of every two, symmetric, without the diagonal."""
    matrix: Matrix = {name: {} for name in features}
    for first, second in itertools.combinations(features, 2):
        matrix[first][second] = matrix[second][first] = debiased_cka(features[first], features[second])
    return matrix


def _level_cka(levels: Mapping[str, Sequence[Tensor]], grid: tuple[int, int]) -> dict[str, Matrix]:
    if len(levels) < 2:
        return {}
    return {
        str(level + 1): _cka({name: _rows(averaged(maps[level], grid)) for name, maps in levels.items()})
        for level in range(STAGES)
    }


@torch.no_grad()
def look(
    committee: Committee, images: Tensor, batch_size: int, size: int | None, device: torch.device
) -> dict[str, Features]:
    """What every teacher says about many pictures, on the CPU in float32.

    Args:
        committee: the teachers, on `device`.
        images: [N, 3, S, S], uint8 or floats in [0, 1].
        batch_size: pictures per pass.
        size: see `Committee.forward`.
        device: where the teachers compute.
    """
    parts = [committee({"images": part.to(device)}, size) for part in images.split(batch_size)]
    return {name: joined([part[name].to("cpu") for part in parts]) for name, _ in committee.items()}


def joined(parts: Sequence[Features]) -> Features:
    """Features of several batches as those of one."""
    return Features(torch.cat([part.summary for part in parts]), torch.cat([part.patches for part in parts]))


@torch.no_grad()
def inner_levels(
    committee: Committee,
    images: Tensor,
    batch_size: int,
    size: int | None,
    device: torch.device,
    grid: tuple[int, int],
) -> dict[str, list[Tensor]]:
    """Maps of four inner levels of each teacher that shows any, averaged onto a grid, on the CPU.

    The levels are the ends of a network's four stages, see `encoders.taps.stage_taps`.
    """
    found: dict[str, list[Tensor]] = {}
    for name, teacher in committee.items():
        tapped = _tapped(teacher)
        if tapped is None:
            continue
        side = teacher.fitting_size(size)
        parts = [
            [averaged(one, grid).cpu() for one in tapped(resize_pictures(as_unit_floats(part.to(device)), side))]
            for part in images.split(batch_size)
        ]
        found[name] = [torch.cat(level) for level in zip(*parts, strict=True)]
    return found


def _tapped(teacher: Encoder) -> Callable[[Tensor], list[Tensor]] | None:
    """Pictures -> maps of four levels; None for teachers that show none."""
    try:
        taps = Taps(teacher)
    except ValueError:
        return None

    def maps(pictures: Tensor) -> list[Tensor]:
        features, levels = taps(pictures)
        return [block_as_map(level, features.grid) for level in levels]

    return maps


def block_as_map(tapped: Tensor, last_grid: tuple[int, int]) -> Tensor:
    """Tokens of an inner block as a map [B, D, h, w]; maps as they are.

    Args:
        tapped: [B, D, h, w], or [B, N, D] with class and register tokens in front.
        last_grid: of the encoder's patches. The grid is this one, or twice, four or eight times as fine in a network
            whose stages shrink it (Swin), which has no such tokens.
    """
    if tapped.ndim == 4:
        return tapped
    count, (rows, columns) = tapped.shape[1], last_grid
    factor = next((factor for factor in (8, 4, 2) if count == factor**2 * rows * columns), 1)
    rows, columns = factor * rows, factor * columns
    return tapped[:, count - rows * columns :].transpose(1, 2).unflatten(2, (rows, columns))
