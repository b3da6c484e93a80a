"""k-nearest-neighbour classification of summaries."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot.evaluate.datasets.base import ClassificationData
from eyespot.evaluate.extract import FeatureBank


def knn_predict(
    train: Tensor, labels: Tensor, queries: Tensor, k: int = 10, temperature: float = 0.07, chunk: int = 1024
) -> Tensor:
    """Predicts classes by a weighted vote of the nearest training pictures (EUPE's and DINO's form; paper notes, C).

    Features are L2-normalised and compared by dot product; each of the k nearest votes for its class with weight
    exp(similarity / temperature). The official code takes the softmax over the top 200 similarities before it cuts to
    k; that divides all votes of a query by one number, so the prediction is the same.

    Args:
        train: [N, C] features.
        labels: [N] int64, their classes.
        queries: [M, C] features.
        k: number of neighbours; all training pictures if there are fewer.
        temperature: of the votes.
        chunk: queries compared at a time.

    Returns:
        [M] int64; the lowest class of those with the most votes.
    """
    if len(train) == 0:
        raise ValueError("k-NN needs training pictures, there are none")
    classes = int(labels.max()) + 1
    train = F.normalize(train.float(), dim=1)
    predictions = []
    for part in F.normalize(queries.float(), dim=1).split(chunk):
        similarity, nearest = (part @ train.T).topk(min(k, len(train)), dim=1)
        # Relative to the nearest one, so that no weight overflows at a low temperature.
        weights = ((similarity - similarity[:, :1]) / temperature).exp()
        votes = torch.zeros(len(part), classes).scatter_add_(1, labels[nearest], weights)
        predictions.append(votes.argmax(dim=1))
    return torch.cat(predictions)


def run(
    bank: FeatureBank, data: ClassificationData, seed: int = 0, k: int = 10, temperature: float = 0.07
) -> dict[str, float]:
    """k-NN accuracy on the validation split. Nothing is random; `seed` is there because every task has one."""
    known, asked = data.train.labels >= 0, data.val.labels >= 0
    predictions = knn_predict(
        bank.summaries(data.train.pictures)[known],
        data.train.labels[known],
        bank.summaries(data.val.pictures)[asked],
        k,
        temperature,
    )
    return {"accuracy": float((predictions == data.val.labels[asked]).float().mean())}
