"""Training-free key-point matching by nearest neighbour of dense features."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot.data.labelled.base import MatchingData
from eyespot.evaluate.extraction import FeatureBank
from eyespot.evaluate.probing.probe import sample

CELLS = 48


@torch.inference_mode()
def match(
    source: Tensor,
    target: Tensor,
    points: Tensor,
    source_size: tuple[int, int],
    target_size: tuple[int, int],
    cells: int = CELLS,
) -> Tensor:
    """Where the points of one picture lie in another, by cosine similarity.

    The source map is sampled bilinearly at each point. Between the centres of the target's patches the map is
    interpolated bilinearly at steps of a whole fraction of a patch, chosen such that every encoder, whatever its
    stride, is searched at about `cells` places along the longer side of its grid. Each point goes to the most similar
    place.

    Args:
        source: [D, h, w], patches of the one.
        target: [D, h', w'], patches of the other.
        points: [K, 2], (x, y) in pixels of the source.
        source_size: (height, width) in pixels of the one.
        target_size: the same of the other.
        cells: see above; never fewer than one place per patch.

    Returns:
        [K, 2] float32, (x, y) in pixels of the target.
    """
    here, there = (torch.tensor([width, height], dtype=torch.float32) for height, width in (source_size, target_size))
    wanted = sample(source[None].float(), (points.float() / here * 2 - 1)[None])[0]
    rows, columns = target.shape[1:]
    steps = max(1, math.ceil(cells / max(rows, columns)))
    fine_size = ((rows - 1) * steps + 1, (columns - 1) * steps + 1)
    fine = F.interpolate(target[None].float(), size=fine_size, mode="bilinear", align_corners=True)[0].flatten(1)
    # The source's own norm scales all similarities of a point alike, so it cannot move the maximum.
    best = (wanted.T @ fine / fine.norm(dim=0).clamp(min=1e-12)).argmax(dim=1)
    place = torch.stack([best % fine_size[1], best // fine_size[1]], dim=1) / steps + 0.5
    return place / torch.tensor([columns, rows]) * there


def correct_points(
    predicted: Sequence[Tensor], truth: Sequence[Tensor], reach: Sequence[float], alpha: float
) -> list[Tensor]:
    """Which key points lie within `alpha` times the pair's reach of their true places.

    Args:
        predicted: for each pair of pictures [K_i, 2] pixels.
        truth: the same for the true places.
        reach: for each pair, the longer side of the picture or of the object's box, in pixels.
        alpha: 0.1 is usual.

    Returns:
        For each pair [K_i], 1 or 0 in float64.
    """
    return [
        ((guess.float() - place.float()).norm(dim=1) <= alpha * length).double()
        for guess, place, length in zip(predicted, truth, reach, strict=True)
    ]


def pck(correct: Sequence[Tensor], groups: Sequence[str]) -> dict[str, float | None]:
    """Percentage of correct key points, as shares in [0, 1], averaged in the three ways that papers use.

    Args:
        correct: of `correct_points`; pairs without points are left out.
        groups: the category of each pair, "" for none.

    Returns:
        The average over all "points"; over "images", that is pairs, of the pair's average; over "categories" of the
        average over the category's points, None if pairs have no category.

    Raises:
        ValueError: there is no point at all.
    """
    kept = [(pair, group) for pair, group in zip(correct, groups, strict=True) if len(pair)]
    if not kept:
        raise ValueError("there are no key points to match")
    by_group: dict[str, list[Tensor]] = {}
    for pair, group in kept:
        by_group.setdefault(group, []).append(pair)
    categories = torch.stack([torch.cat(pairs).mean() for pairs in by_group.values()])
    return {
        "points": float(torch.cat([pair for pair, _ in kept]).mean()),
        "images": float(torch.stack([pair.mean() for pair, _ in kept]).mean()),
        "categories": None if "" in by_group else float(categories.mean()),
    }


def run(bank: FeatureBank, data: MatchingData, seed: int = 0, *, alpha: float | None = None) -> dict[str, float | None]:
    """PCK at 0.1 and 0.05 over points, and at 0.1 over pictures and over categories. Nothing is random.

    EUPE's SPair-71k protocol leaves layer, averaging and threshold (box or picture) open (paper notes, C); ours: the
    last patches under the final norm, all three averages, and the threshold that the data set states. Its input sizes,
    448 px for patches of 14 and 512 px for patches of 16, are the evaluation's `size`; pictures are squeezed to it.

    Args:
        bank: the encoder.
        data: pairs of pictures.
        seed: not used.
        alpha: one more share of the reach that counts as near; adds PCK@alpha over points.

    Raises:
        ValueError: an alpha that is not positive.
    """
    if alpha is not None and not alpha > 0:
        raise ValueError(f"alpha is a positive share of the reach, got {alpha}")
    sources = bank.features(data.sources).patches
    targets = bank.features(data.targets).patches
    predicted = [
        match(sources[pair.source], targets[pair.target], pair.source_points, pair.source_size, pair.target_size)
        for pair in data.pairs
    ]
    return averages_of(predicted, data, alpha)


def averages_of(predicted: Sequence[Tensor], data: MatchingData, alpha: float | None = None) -> dict[str, float | None]:
    """The metrics of `run`, of predicted places [K, 2] for each pair of pictures."""
    truth, reach = [pair.target_points for pair in data.pairs], [pair.reach for pair in data.pairs]
    groups = [pair.group for pair in data.pairs]
    shares = (0.1, 0.05) if alpha is None else (0.1, 0.05, alpha)
    found = {share: pck(correct_points(predicted, truth, reach, share), groups) for share in shares}
    return {
        **{f"PCK@{share:g}": averages["points"] for share, averages in found.items()},
        "PCK@0.1/image": found[0.1]["images"],
        "PCK@0.1/category": found[0.1]["categories"],
    }
