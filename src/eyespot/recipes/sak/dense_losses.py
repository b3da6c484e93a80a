"""Losses of dense tasks: a head's raw outputs against label maps as `eyespot.dense_tasks` defines them.

One function per kind of task, all `loss(output, label, whole)` -> a scalar in float32, not yet weighted. Pixels without
a label count for nothing; a batch without any labelled pixel costs 0, with gradients of 0. The formulas are those of
SAK's code (`losses.py`) unless they say "ours".

Means are over the labelled pixels of a batch. Where it is computed in parts (micro-batches, processes), `whole` says
how many these are in all of it, so that the mean of the parts' losses, each weighed by its pictures, is the loss of the
whole (ours; SAK's code takes the mean over each GPU's part).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from eyespot.dense_tasks import IGNORE, Kind
from eyespot.distill.classes.logit_losses import in_float32

BOUNDARY_SHARE = 0.95
"""Weight of pixels on a boundary; those beside it have the rest. As if one pixel in twenty were on one."""

SHORTEST = 1e-4
"""Predicted normals count as at least so long when they are normalised (ours): keeps gradients finite."""


@dataclass(frozen=True)
class LabelledPixels:
    """What a batch is labelled with, over all its parts.

    Attributes:
        labelled: 0-d float32, its pixels with a label.
        background: 0-d float32, those of class 0; for saliency.
        pictures: how many there are.
    """

    labelled: Tensor
    background: Tensor
    pictures: int

    @classmethod
    def of(cls, kind: Kind, label: Tensor) -> LabelledPixels:
        """Those of one label map [B, ...] alone."""
        if kind == "normals":
            labelled = (label != 0).any(1)
        elif kind == "depth":
            labelled = label > 0
        else:
            labelled = label != IGNORE
        return cls(labelled.sum().float(), (label == 0).sum().float(), len(label))

    def share(self, pictures: int) -> Tensor:
        """What a part of so many pictures divides by: its share of all labelled pixels, which are at least 1."""
        return self.labelled.clamp(min=1) * (pictures / self.pictures)


def labelled_pixels(kinds: Mapping[str, Kind], labels: Mapping[str, Tensor]) -> dict[str, LabelledPixels]:
    """Those of all processes together, by task; on the device, so that the host waits for nothing.

    Args:
        kinds: of the tasks, by name.
        labels: of this process's part of the batch, by name of the task; the same names in all processes.
    """
    tasks = [name for name in kinds if name in labels and kinds[name] != "keypoints"]
    found = {name: LabelledPixels.of(kinds[name], labels[name]) for name in tasks}
    if not found or not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return found
    sums = torch.stack([torch.stack([found[name].labelled, found[name].background]) for name in tasks]).double()
    dist.all_reduce(sums)
    pictures = dist.get_world_size()
    return {
        name: LabelledPixels(row[0].float(), row[1].float(), pictures * found[name].pictures)
        for name, row in zip(tasks, sums, strict=True)
    }


@in_float32
def class_loss(output: Tensor, label: Tensor, whole: LabelledPixels | None = None) -> Tensor:
    """Cross-entropy, a mean over labelled pixels.

    Args:
        output: logits [B, C, H, W].
        label: classes, uint8 [B, H, W].
        whole: of the batch that this is a part of; None: this is all of it.
    """
    total = F.cross_entropy(output, label.long(), ignore_index=IGNORE, reduction="sum")
    return total / (whole or LabelledPixels.of("classes", label)).share(len(label))


@in_float32
def saliency_loss(output: Tensor, label: Tensor, whole: LabelledPixels | None = None, balanced: bool = True) -> Tensor:
    """Cross-entropy of two classes; each weighs as much as the batch has of the OTHER one.

    With r the share of background among the labelled pixels of the batch, background weighs 1 - r and salient pixels r.
    The sum is divided by the number of labelled pixels, not by their weights.

    Args:
        output: logits [B, 2, H, W], background first.
        label: uint8 [B, H, W], 1 salient, 0 not.
        whole: see `class_loss`.
        balanced: False for plain cross-entropy.
    """
    if not balanced:
        return class_loss(output, label, whole)
    whole = whole or LabelledPixels.of("saliency", label)
    background = whole.background / whole.share(whole.pictures)
    errors = F.cross_entropy(output, label.long(), ignore_index=IGNORE, reduction="none")
    weights = background + (label == 0) * (1 - 2 * background)
    return (weights * errors).sum() / whole.share(len(label))


@in_float32
def boundary_loss(output: Tensor, label: Tensor, whole: LabelledPixels | None = None) -> Tensor:
    """Binary cross-entropy, 0.95 for pixels on a boundary and 0.05 for all others, a mean over labelled pixels.

    Args:
        output: logits [B, 1, H, W].
        label: uint8 [B, H, W], 1 on a boundary.
        whole: see `class_loss`.
    """
    labelled = label != IGNORE
    weights = labelled * ((1 - BOUNDARY_SHARE) + (label == 1) * (2 * BOUNDARY_SHARE - 1))
    errors = F.binary_cross_entropy_with_logits(output[:, 0], (label == 1).float(), reduction="none")
    return (weights * errors).sum() / (whole or LabelledPixels.of("boundary", label)).share(len(label))


@in_float32
def normals_loss(output: Tensor, label: Tensor, whole: LabelledPixels | None = None) -> Tensor:
    """L1 distance between the normalised output and the label, summed over channels, a mean over labelled pixels.

    Args:
        output: [B, 3, H, W], vectors of any length.
        label: float32 [B, 3, H, W], unit vectors; (0, 0, 0) where there is none.
        whole: see `class_loss`.
    """
    directions = output * output.square().sum(1, keepdim=True).clamp(min=SHORTEST**2).rsqrt()
    labelled = (label != 0).any(1)
    divisor = (whole or LabelledPixels.of("normals", label)).share(len(label))
    return ((directions - label).abs().sum(1) * labelled).sum() / divisor


@in_float32
def depth_loss(output: Tensor, label: Tensor, whole: LabelledPixels | None = None) -> Tensor:
    """L1 distance in metres, a mean over labelled pixels.

    Args:
        output: metres [B, 1, H, W].
        label: metres, float32 [B, H, W]; 0 where there is none.
        whole: see `class_loss`.
    """
    labelled = label > 0
    divisor = (whole or LabelledPixels.of("depth", label)).share(len(label))
    return ((output[:, 0] - label).abs() * labelled).sum() / divisor


@in_float32
def keypoint_loss(output: Tensor, label: Tensor, whole: LabelledPixels | None = None) -> Tensor:
    """Binary cross-entropy with the heat map as a soft label, a mean over pixels and types of key points (ours).

    Unlike a squared error of the sigmoid it still pulls where the output is certain and wrong, which it soon is on maps
    that are 0 nearly everywhere.

    Args:
        output: logits [B, C, H, W].
        label: float32 [B, C, H, W] in [0, 1].
        whole: no matter, since every pixel counts.
    """
    return F.binary_cross_entropy_with_logits(output, label)


DENSE_LOSSES: dict[Kind, Callable[[Tensor, Tensor, LabelledPixels | None], Tensor]] = {
    "classes": class_loss,
    "saliency": saliency_loss,
    "boundary": boundary_loss,
    "normals": normals_loss,
    "depth": depth_loss,
    "keypoints": keypoint_loss,
}
"""The loss of each kind of task."""
