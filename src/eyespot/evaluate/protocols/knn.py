"""k-nearest-neighbour classification of summaries."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot.data.labelled.base import ClassificationData
from eyespot.evaluate.extraction import FeatureBank

PUBLISHED_KS = (10, 20, 100, 200)  # the list of EUPE's and DINO's code
CHUNK = 2**26  # numbers in a block of similarities (256 MiB): ImageNet's training set is asked 52 pictures at a time


def nearest(
    train: Tensor, queries: Tensor, k: int, metric: str = "cosine", chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    """The nearest training pictures of each query, by exhaustive search, on the device of `train`.

    Args:
        train: [N, C] features.
        queries: [M, C] features.
        k: number of neighbours; all N if there are fewer.
        metric: "cosine", or "l2" for the Euclidean distance of features as they are. Both are computed as float32
            matrix products; for "l2" the mean of `train` is subtracted first, which keeps rounding errors small.
        chunk: queries compared at a time; as many as keep a block of similarities at 256 MiB if None.

    Returns:
        similarity [M, k], descending (cosine in [-1, 1], or minus the squared distance), and the indices [M, k].

    Raises:
        ValueError: no training pictures, k below 1, or another metric.
    """
    if len(train) == 0:
        raise ValueError("k-NN needs training pictures, there are none")
    if k < 1:
        raise ValueError(f"k-NN needs at least one neighbour, got k = {k}")
    if metric not in _SIMILARITY:
        raise ValueError(f"metric {metric!r}: write {' or '.join(_SIMILARITY)}")
    compare, queries = _SIMILARITY[metric](train.float()), queries.float().to(train.device)
    parts = queries.split(chunk or max(1, CHUNK // len(train)))
    found = [compare(part).topk(min(k, len(train)), dim=1) for part in parts]
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])


def _cosine(train: Tensor) -> Callable[[Tensor], Tensor]:
    unit = F.normalize(train, dim=1)
    return lambda queries: F.normalize(queries, dim=1) @ unit.T


def _minus_squared_distance(train: Tensor) -> Callable[[Tensor], Tensor]:
    mean = train.mean(dim=0)
    centred = train - mean
    lengths = centred.square().sum(dim=1)

    def compare(queries: Tensor) -> Tensor:
        moved = queries - mean
        return 2 * moved @ centred.T - lengths - moved.square().sum(dim=1, keepdim=True)

    return compare


_SIMILARITY = {"cosine": _cosine, "l2": _minus_squared_distance}


def vote(similarity: Tensor, nearest_labels: Tensor, k: int, temperature: float | None = 0.07) -> Tensor:
    """Predicts classes by the votes of the first k neighbours.

    Args:
        similarity: [M, n] descending, of the n >= k nearest training pictures.
        nearest_labels: [M, n] int64, their classes.
        k: how many of them vote; all if there are fewer.
        temperature: each votes with weight exp(similarity / temperature); with equal weights if None.

    Returns:
        [M] int64; the lowest class of those with the most votes.
    """
    similarity, nearest_labels = similarity[:, :k], nearest_labels[:, :k]
    # Relative to the nearest one, so that no weight overflows at a low temperature.
    exponent = 0 * similarity if temperature is None else (similarity - similarity[:, :1]) / temperature
    votes = similarity.new_zeros(len(similarity), int(nearest_labels.max()) + 1)
    return votes.scatter_add_(1, nearest_labels, exponent.exp()).argmax(dim=1)


def run(
    bank: FeatureBank,
    data: ClassificationData,
    seed: int = 0,
    k: int = 10,
    ks: int | tuple[int, ...] = PUBLISHED_KS,
    metric: str = "cosine",
    temperature: float = 0.07,
) -> dict[str, float]:
    """k-NN accuracy on the validation split, on the encoder's device. Nothing is random.

    EUPE's paper and its code differ (paper notes, C), and both are here. The code, DINO's form, is the default: cosine
    similarity, votes weighted by exp(similarity / 0.07), k of 10, 20, 100 and 200. The code takes the softmax over
    the top 200 similarities before it cuts to k; that divides all votes of a query by one number, so the prediction is
    the same. The paper's words, "k = 10" and "L2 distance", are `metric="l2"`: plain distances, equal votes.
    Deviations: float32 throughout instead of autocast.

    Args:
        bank: the encoder.
        data: pictures without a label count neither as neighbours nor as queries.
        seed: not used; it is there because every task has one.
        k: number of neighbours of the headline.
        ks: further numbers of neighbours for `best`. It is the best on the pictures that it is measured on, as such
            lists are often reported, and so slightly optimistic.
        metric: "cosine" or "l2", see `nearest`.
        temperature: of the votes; equal votes for "l2", whose scale differs from encoder to encoder.

    Returns:
        accuracy at k; best, the highest accuracy at k or any of `ks`, and best_k, the smallest number that reaches it.
    """
    known, asked = data.train.labels >= 0, data.val.labels >= 0
    train = bank.summaries(data.train.pictures)[known].to(bank.encoder.device)
    queries, truth = bank.summaries(data.val.pictures)[asked], data.val.labels[asked].to(train.device)
    tried = sorted({k, *((ks,) if isinstance(ks, int) else ks)})
    similarity, index = nearest(train, queries, tried[-1], metric)
    labels = data.train.labels[known].to(train.device)[index]
    weighting = temperature if metric == "cosine" else None
    right = {number: vote(similarity, labels, number, weighting) == truth for number in tried}
    accuracy = {number: float(hits.double().mean()) for number, hits in right.items()}
    best_k = max(tried, key=lambda number: accuracy[number])
    return {"accuracy": accuracy[k], "best": accuracy[best_k], "best_k": float(best_k)}
