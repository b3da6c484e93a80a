"""What a student is taught, as criteria over (summary, patches) of student and teacher; used by several loops.

Each is a module with the adapters it needs: `forward(summary [B, C], patches [B, N, D], target_summary,
target_patches) -> loss`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Dims = tuple[int, int]


class Pooled(nn.Module):
    """Mean squared error of the pooled vector after one linear map, none where the widths agree (timm.task)."""

    mixup = False

    def __init__(self, student: Dims, teacher: Dims) -> None:
        super().__init__()
        self.projection = nn.Identity() if student[0] == teacher[0] else nn.Linear(student[0], teacher[0])

    def forward(self, summary: Tensor, patches: Tensor, target_summary: Tensor, target_patches: Tensor) -> Tensor:
        """See the module's docstring."""
        return F.mse_loss(self.projection(summary).float(), target_summary.float())


class Patches(nn.Module):
    """EUPE's losses (section 4.1) in plain torch: adapter heads; cosine of summaries, cosine and smooth L1 of patches.

    Targets are standardized by fixed statistics; their values do not matter to the time they take.
    """

    mixup = False
    summary_mean: Tensor
    summary_std: Tensor
    patch_mean: Tensor
    patch_std: Tensor

    def __init__(self, student: Dims, teacher: Dims, hidden: int) -> None:
        super().__init__()
        self.summary, self.patch = (head(width, hidden, out) for width, out in zip(student, teacher, strict=True))
        for name, width in zip(("summary", "patch"), teacher, strict=True):
            self.register_buffer(f"{name}_mean", torch.zeros(width))
            self.register_buffer(f"{name}_std", torch.ones(width))

    def forward(self, summary: Tensor, patches: Tensor, target_summary: Tensor, target_patches: Tensor) -> Tensor:
        """See the module's docstring."""
        vector, tokens = self.summary(summary).float(), self.patch(patches).float()
        goal = (target_summary.float() - self.summary_mean) / self.summary_std
        goals = (target_patches.float() - self.patch_mean) / self.patch_std
        loss = 1 - F.cosine_similarity(vector, goal, dim=1).mean()
        loss = loss + 0.9 * (1 - F.cosine_similarity(tokens, goals, dim=2).mean())
        return loss + 0.1 * F.smooth_l1_loss(tokens, goals)


class QueueSimilarity(nn.Module):
    """The losses of LightlyTrain's `distillationv3`, written anew from their definition.

    The pooled patches, after a linear map, are to be as similar to each of the teacher's last `queue` pooled vectors as
    the teacher's own vector is; the patches, after another map, to each other as the teacher's are. Similarities are
    cosines through a softmax of temperature 0.07, compared by the Kullback-Leibler divergence. Pictures are mixed.
    """

    mixup = True
    temperature = 0.07
    remembered: Tensor

    def __init__(self, student: Dims, teacher: Dims, queue: int) -> None:
        super().__init__()
        self.whole, self.local = nn.Linear(student[1], teacher[1]), nn.Linear(student[1], teacher[1])
        self.register_buffer("remembered", torch.zeros(queue, teacher[1]))

    def forward(self, summary: Tensor, patches: Tensor, target_summary: Tensor, target_patches: Tensor) -> Tensor:
        """See the module's docstring."""
        vector = F.normalize(self.whole(patches.mean(1)), dim=-1)
        tokens = F.normalize(self.local(patches), dim=-1)
        goal, goals = F.normalize(target_patches.mean(1), dim=-1), F.normalize(target_patches, dim=-1)
        self.remembered = torch.cat([goal.to(self.remembered.dtype), self.remembered])[: len(self.remembered)]
        others = self.remembered.to(goal.dtype)
        whole = self.divergence(vector @ others.T, goal @ others.T)
        return whole + self.divergence(tokens @ tokens.mT, goals @ goals.mT)

    def divergence(self, similarity: Tensor, target: Tensor) -> Tensor:
        """Mean over rows of KL(target, similarity), both through the softmax over the last dimension."""
        log_ours = F.log_softmax(similarity.float() / self.temperature, dim=-1).flatten(0, -2)
        theirs = F.softmax(target.float() / self.temperature, dim=-1).flatten(0, -2)
        return F.kl_div(log_ours, theirs, reduction="batchmean")


def head(width: int, hidden: int, out: int) -> nn.Sequential:
    """EUPE's adapter head."""
    return nn.Sequential(
        nn.Linear(width, hidden, bias=False), nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, out, bias=False)
    )


def make_criterion(losses: str, student: Dims, teacher: Dims, hidden: int, queue: int) -> nn.Module:
    """The criterion of that name, for these widths of (summary, patches)."""
    if losses == "pooled":
        return Pooled(student, teacher)
    if losses == "patches":
        return Patches(student, teacher, hidden)
    return QueueSimilarity(student, teacher, queue)


def mix(images: Tensor) -> Tensor:
    """Each picture blended with another one of its batch, all by one uniformly drawn weight."""
    weight = float(torch.rand(()))
    return weight * images + (1 - weight) * images[torch.randperm(len(images))]
