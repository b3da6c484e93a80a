"""What a trained student is worth, by eyespot's own evaluation, and how much of its teachers it holds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot import Encoder
from eyespot.data.labelled.base import Pictures
from eyespot.evaluate import evaluate
from eyespot.evaluate.extraction import FeatureBank
from eyespot.evaluate.protocols.feature_geometry import rankme
from eyespot.features import resize_map

RIDGE = 1e-2


def measure(
    student: Encoder,
    teachers: dict[str, Encoder],
    pictures: tuple[Pictures, Pictures],
    labelled: tuple[str, str],
    sizes: tuple[int, int],
) -> dict[str, float]:
    """All measures of one student.

    Args:
        student: with its trained weights.
        teachers: by name.
        pictures: (train, held out): the ridge maps are fitted on the first and judged on the second.
        labelled: specs of the labelled pictures and of the pictures with masks, as `evaluate` takes them.
        sizes: side of the pictures in pixels, for whole pictures and for the dense probe.

    Returns:
        "knn" and "segmentation" on the teachers' labels, "rankme" of the held-out summaries, and for each teacher the
        cosines "NAME summary" and "NAME patch" after a ridge map.
    """
    whole, dense = sizes
    knn = evaluate({"student": student}, ["knn"], {"knn": labelled[0]}, size=whole).rows["student"]
    probe = evaluate({"student": student}, ["segmentation"], {"segmentation": labelled[1]}, size=dense).rows["student"]
    bank = FeatureBank(student, whole)
    values = {
        "knn": value(knn["knn/accuracy"]),
        "segmentation": value(probe["segmentation/mIoU"]),
        "rankme": rankme(bank.summaries(pictures[1])),
    }
    for name, teacher in teachers.items():
        known = FeatureBank(teacher, whole)
        ours, theirs = ([one.summaries(part) for part in pictures] for one in (bank, known))
        values[f"{name} summary"] = likeness(ours[0], theirs[0], ours[1], theirs[1])
        seen = [aligned_patches(bank, known, part) for part in pictures]
        values[f"{name} patch"] = likeness(seen[0][0], seen[0][1], seen[1][0], seen[1][1])
    return values


def value(number: float | None) -> float:
    """A measured number; the tasks here always give one."""
    assert number is not None
    return number


def aligned_patches(student: FeatureBank, teacher: FeatureBank, pictures: Pictures) -> tuple[Tensor, Tensor]:
    """Patch vectors [N, D] of both on the teacher's grid."""
    theirs = teacher.features(pictures).patches.float()
    ours = resize_map(student.features(pictures).patches.float(), (theirs.shape[2], theirs.shape[3]))
    return tuple(maps.permute(0, 2, 3, 1).flatten(0, 2) for maps in (ours, theirs))  # type: ignore[return-value]


def likeness(ours: Tensor, theirs: Tensor, ours_held_out: Tensor, theirs_held_out: Tensor) -> float:
    """Mean cosine of held-out teacher vectors [M, C] with what a ridge map makes of the student's [M, D].

    Both are centred by the means of the first [N, ...] pair, on which the map is fitted, so that a constant guess is
    worth nothing.
    """
    centre, goal_centre = ours.mean(0), theirs.mean(0)
    inputs, goals = (ours - centre).double(), (theirs - goal_centre).double()
    gram = inputs.T @ inputs
    strength = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    linear = torch.linalg.solve(gram + strength, inputs.T @ goals)
    guesses = (ours_held_out - centre).double() @ linear
    return float(F.cosine_similarity(guesses, (theirs_held_out - goal_centre).double(), dim=1).mean())
