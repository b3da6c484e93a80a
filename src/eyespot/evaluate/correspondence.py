"""Training-free key-point matching by nearest neighbour of dense features."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot.evaluate.datasets.base import MatchingData
from eyespot.evaluate.extract import FeatureBank
from eyespot.evaluate.probe import sample

CELLS = 48


@torch.inference_mode()
def match(source: Tensor, target: Tensor, points: Tensor, size: tuple[int, int], cells: int = CELLS) -> Tensor:
    """Where the points of one picture lie in another, by cosine similarity.

    The source map is sampled bilinearly at each point. Between the centres of the target's patches the map is
    interpolated bilinearly at steps of a whole fraction of a patch, chosen such that every encoder, whatever its
    stride, is searched at about `cells` places along the longer side of its grid. Each point goes to the most similar
    place.

    Args:
        source: [D, h, w], patches of the one.
        target: [D, h', w'], patches of the other.
        points: [K, 2], (x, y) in pixels of the source.
        size: (height, width) in pixels of both pictures.
        cells: see above; never fewer than one place per patch.

    Returns:
        [K, 2] float32, (x, y) in pixels of the target.
    """
    scale = torch.tensor([size[1], size[0]], dtype=torch.float32)
    wanted = sample(source[None].float(), (points.float() / scale * 2 - 1)[None])[0]
    rows, columns = target.shape[1:]
    steps = max(1, math.ceil(cells / max(rows, columns)))
    fine_size = ((rows - 1) * steps + 1, (columns - 1) * steps + 1)
    fine = F.interpolate(target[None].float(), size=fine_size, mode="bilinear", align_corners=True)[0].flatten(1)
    # The source's own norm scales all similarities of a point alike, so it cannot move the maximum.
    best = (wanted.T @ fine / fine.norm(dim=0).clamp(min=1e-12)).argmax(dim=1)
    place = torch.stack([best % fine_size[1], best // fine_size[1]], dim=1) / steps + 0.5
    return place / torch.tensor([columns, rows]) * scale


def pck(
    predicted: Sequence[Tensor], truth: Sequence[Tensor], size: tuple[int, int], alpha: float
) -> tuple[float, float]:
    """Percentage of correct key points, as a share in [0, 1].

    A point is correct if it lies within `alpha` times the longer side of the picture of its true place.

    Args:
        predicted: for each pair of pictures [K_i, 2] pixels.
        truth: the same for the true places; pairs without points are left out.
        size: (height, width) in pixels.
        alpha: 0.1 is usual.

    Returns:
        The average over all points, and the average over pairs of the pair's average.
    """
    correct = [
        ((guess.float() - place.float()).norm(dim=1) <= alpha * max(size)).double()
        for guess, place in zip(predicted, truth, strict=True)
        if len(place)
    ]
    if not correct:
        raise ValueError("there are no key points to match")
    return float(torch.cat(correct).mean()), float(torch.stack([pair.mean() for pair in correct]).mean())


def run(bank: FeatureBank, data: MatchingData, seed: int = 0) -> dict[str, float]:
    """PCK at 0.1 and 0.05 of the picture's longer side, over points, and at 0.1 over pictures. Nothing is random.

    EUPE's SPair-71k protocol leaves layer, averaging and threshold (box or picture) open (paper notes, C); ours: the
    last patches, both averages, the picture.
    """
    sources = bank.features(data.sources).patches
    targets = bank.features(data.targets).patches
    predicted = [match(sources[p.source], targets[p.target], p.source_points, data.size) for p in data.pairs]
    truth = [pair.target_points for pair in data.pairs]
    per_point, per_image = pck(predicted, truth, data.size, 0.1)
    return {
        "PCK@0.1": per_point,
        "PCK@0.05": pck(predicted, truth, data.size, 0.05)[0],
        "PCK@0.1/image": per_image,
    }
