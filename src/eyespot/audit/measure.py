"""What is measured of a student: losses on held-out pictures, what can be read out, gradients that disagree."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from eyespot.audit.similarity import Matrix, averaged, joined
from eyespot.audit.subsets import SubsetLearner
from eyespot.evaluate.extraction import eval_mode
from eyespot.evaluate.probing.similarity import RidgeData, ridge_r2
from eyespot.features import Features
from eyespot.pictures import as_unit_floats, resize_pictures
from eyespot.randomness import seed_of, seed_torch

CONFLICT_BATCHES = 4
"""Batches over which the cosines of gradients are averaged."""

Losses = dict[str, dict[str, float]]
"""By teacher: {"summary": ..., "patch": ...}, see `FeatureLoss`."""


@torch.no_grad()
def measure_held_out(
    learner: SubsetLearner, images: Tensor, size: int, targets: Mapping[str, Features], batch_size: int
) -> tuple[Losses, Features]:
    """A student's losses against its teachers on held-out pictures, and its features of them.

    Args:
        learner: the student; looks in eval mode, in float32.
        images: uint8 [N, 3, S, S].
        size: side in pixels at which the student looks.
        targets: standardized features of all teachers.
        batch_size: pictures per pass.
    """
    device, side = learner.encoder.device, learner.encoder.fitting_size(size)
    sums = {name: torch.zeros(2) for name in learner.taught_by}
    seen: list[Features] = []
    with eval_mode(learner.encoder):
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            features = learner.encoder(resize_pictures(as_unit_floats(images[part].to(device)), side)).float()
            for name, total in sums.items():
                target = targets[name][part].to(device)
                losses = learner.loss(learner.heads[name](features), target)
                total += len(target) * torch.stack(losses).cpu()
            seen.append(features.to("cpu"))
    means = {name: (total / len(images)).tolist() for name, total in sums.items()}
    return {name: {"summary": summary, "patch": patch} for name, (summary, patch) in means.items()}, joined(seen)


def readout(student: Features, targets: Mapping[str, Features]) -> dict[str, float]:
    """How well a linear map from a student's patches predicts each teacher's: R² on pictures it was not fitted on.

    Maps are averaged onto the coarser of the two grids, side by side.
    """
    found: dict[str, float] = {}
    for name, target in targets.items():
        grid = (min(student.grid[0], target.grid[0]), min(student.grid[1], target.grid[1]))
        splits = [RidgeData.by_picture(averaged(features.patches, grid)) for features in (student, target)]
        found |= ridge_r2(splits[0], {name: splits[1]})
    return found


def gradient_cosines(
    learner: SubsetLearner, images: Tensor, size: int, targets: Mapping[str, Features], batch_size: int
) -> Matrix:
    """Cosine between the gradients of every two teachers' losses at the student's own weights (not its heads').

    Negative: what one teacher asks for undoes what the other asks for. The student is in training mode here, but a copy
    is looked at, so neither it nor any random generator changes.

    Args:
        learner: the student with a head for each teacher.
        images: uint8 [N, 3, S, S]; the first four batches of them are looked at.
        size: side in pixels at which the student looks.
        targets: standardized features of the teachers.
        batch_size: pictures per gradient.

    Returns:
        Mean cosines over the batches, symmetric, without the diagonal.
    """
    device, names = learner.encoder.device, learner.taught_by
    mirror = copy.deepcopy(learner).train()
    cosines = []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else ()), torch.enable_grad():
        for number, start in enumerate(range(0, len(images), batch_size)[:CONFLICT_BATCHES]):
            seed_torch(seed_of("gradient cosines", number))
            part = slice(start, start + batch_size)
            batch = {name: targets[name][part].to(device) for name in names}
            losses = mirror(as_unit_floats(images[part].to(device)), size, batch)
            gradients = torch.stack([_trunk_gradient(mirror, losses, name) for name in names])
            unit = torch.nn.functional.normalize(gradients, dim=1)
            cosines.append((unit @ unit.T).cpu())
    mean = torch.stack(cosines).mean(0).tolist()
    return {row: {column: mean[i][j] for j, column in enumerate(names) if i != j} for i, row in enumerate(names)}


def _trunk_gradient(learner: SubsetLearner, losses: Mapping[str, Tensor], teacher: str) -> Tensor:
    """Gradient of one teacher's losses with respect to all of the student's weights, as one vector."""
    weights = [weight for weight in learner.encoder.parameters() if weight.requires_grad]
    loss = losses[f"{teacher}/summary"] + losses[f"{teacher}/patch"]
    gradients = torch.autograd.grad(loss, weights, retain_graph=True, materialize_grads=True, allow_unused=True)
    return torch.cat([gradient.flatten() for gradient in gradients])
