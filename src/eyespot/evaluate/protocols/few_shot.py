"""Few-shot classification: logistic regression on a handful of pictures per class."""

from __future__ import annotations

import torch
from torch import Tensor

from eyespot.data.labelled.base import ClassificationData
from eyespot.evaluate.extraction import FeatureBank
from eyespot.evaluate.probing.logistic import STRENGTHS, logistic_accuracy
from eyespot.evaluate.protocols.linear import with_labels
from eyespot.randomness import torch_generator


def draw_shots(labels: Tensor, shots: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws pictures to learn from, and as many others to choose the penalty on.

    Args:
        labels: [N] int64, classes.
        shots: pictures per class; a class that has fewer gives all it has to learning.
        generator: of the draw.

    Returns:
        Two sets of indices into `labels`, without any in common: at most `shots` of each class.
    """
    order = torch.randperm(len(labels), generator=generator)
    shuffled = labels[order]
    turn = torch.zeros_like(labels)
    for value in labels.unique():
        member = shuffled == value
        turn[member] = torch.arange(int(member.sum()))
    return order[turn < shots], order[(turn >= shots) & (turn < 2 * shots)]


def run(
    bank: FeatureBank,
    data: ClassificationData,
    seed: int = 0,
    shots: int | tuple[int, ...] = 5,
    draws: int = 5,
    strengths: float | tuple[float, ...] = STRENGTHS,
) -> dict[str, float]:
    """Accuracy on the whole validation split of logistic regressions that have seen a few pictures per class (ours).

    As in `linear.run`. The penalty is chosen on as many further training
    pictures per class: it is the one thing for which more than `shots` pictures of a class are looked at.

    Args:
        bank: the encoder.
        data: pictures without a label are left out.
        seed: names the draws; equal for all encoders.
        shots: pictures per class; several numbers are averaged.
        draws: how often pictures are drawn anew.
        strengths: see `linear.run`.

    Returns:
        accuracy, the mean over draws (and numbers of shots), and spread, its standard deviation between draws.

    Raises:
        ValueError: fewer than one shot or draw, or no class with more than `shots` pictures.
    """
    numbers = (shots,) if isinstance(shots, int) else shots
    if draws < 1 or not numbers or min(numbers) < 1:
        raise ValueError(f"few-shot classification needs at least one shot and draw, got {shots} and {draws}")
    pool, queries = (
        with_labels(bank.summaries(split.pictures), split.labels, bank.encoder.device)
        for split in (data.train, data.val)
    )
    accuracies = torch.zeros(draws, len(numbers), dtype=torch.float64)
    for draw in range(draws):
        for place, number in enumerate(numbers):
            chosen, held = draw_shots(pool.labels.cpu(), number, torch_generator(seed, "shots", draw))
            if len(held) == 0:
                raise ValueError(f"no class has more than {number} training pictures; lower shots, or give more data")
            chosen, held = chosen.to(pool.labels.device), held.to(pool.labels.device)
            accuracies[draw, place] = logistic_accuracy(pool[chosen], queries, pool[held], strengths)
    per_draw = accuracies.mean(dim=1)
    return {"accuracy": float(per_draw.mean()), "spread": float(per_draw.std()) if draws > 1 else 0.0}
