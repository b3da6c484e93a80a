"""CRD: the student recognises each picture among many by the teacher's memory of it (Tian et al., ICLR 2020)."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from eyespot.distill.classes.config import MethodSettings
from eyespot.distill.classes.logit_losses import in_float32
from eyespot.distill.classes.outputs import ClassifierOutput, Method, OutputShape


class ContrastiveKD(Method):
    """Contrastive distillation with a memory of all pictures ("crd").

    Both summaries go through linear layers onto one sphere. A memory keeps, for either side, where each picture was
    last. The student's vector must be told apart: near the teacher's memory of the same picture, far from that of K
    others; and the same the other way round. See `contrast` for the loss.

    The memory is saved and resumed with the module: 2 x pictures x `crd_width` floats (1.3 GB for ImageNet).

    Among several processes all keep the same memory: vectors and numbers of each batch are gathered before they are
    written, which is little beside the gradients (ours; the published code runs on one). All need the same number of
    pictures in a batch.

    Two things are ours: the K negatives are drawn once for all pictures of a batch rather than for each, which has the
    same expectation at a fraction of the memory; and a picture that is in a batch twice is written once, with the mean.
    Negatives are drawn uniformly from all pictures with repetition, so K may exceed their number; that the picture
    itself can be among them is what the noise distribution of the loss assumes.

    Raises:
        ValueError: no pictures.
    """

    student_memory: Tensor
    teacher_memory: Tensor
    log_partitions: Tensor
    started: Tensor

    teacher_logits = False

    def __init__(self, settings: MethodSettings, student: OutputShape, teacher: OutputShape, pictures: int) -> None:
        super().__init__(settings, student, teacher, pictures)
        if pictures < 1:
            raise ValueError(
                f"crd keeps a memory of every picture and needs to know how many there are, not {pictures}"
            )
        self.pictures = pictures
        self.student_embedding = nn.Linear(student.summary, settings.crd_width)
        self.teacher_embedding = nn.Linear(teacher.summary, settings.crd_width)
        spread = math.sqrt(3 / settings.crd_width)  # length 1 on average
        for who in ("student", "teacher"):
            memory = torch.empty(pictures, settings.crd_width).uniform_(-spread, spread)
            self.register_buffer(f"{who}_memory", memory)
        self.register_buffer("log_partitions", torch.zeros(2))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    def losses(
        self, student: ClassifierOutput, teacher: ClassifierOutput, target: Tensor, picture: Tensor
    ) -> dict[str, Tensor]:
        """`crd`. In training mode the memory is written, after it was read."""
        ours = _on_sphere(self.student_embedding(student.summary))
        theirs = _on_sphere(self.teacher_embedding(teacher.summary))
        negatives = torch.randint(self.pictures, (self.settings.crd_negatives,), device=picture.device)
        pairs = ((ours, self.teacher_memory), (theirs, self.student_memory))
        scores = [
            similarities(who, memory, picture, negatives) / self.settings.crd_temperature for who, memory in pairs
        ]
        partitions = self._partitions(scores)
        terms = [contrast(score - partitions[side], self.pictures) for side, score in enumerate(scores)]
        if self.training:
            self._remember(ours.detach(), theirs.detach(), picture)
        return {"crd": self.settings.weight * torch.stack(terms).sum()}

    @torch.no_grad()
    def _partitions(self, scores: list[Tensor]) -> Tensor:
        """Logarithms of both partition functions, estimated in the first batch and then kept, as published."""
        means = torch.stack([score.flatten().logsumexp(0) - math.log(score.numel()) for score in scores])
        if _processes() > 1:
            shares = means.exp()
            dist.all_reduce(shares)
            means = (shares / _processes()).log()
        log_partitions = torch.where(self.started, self.log_partitions, means + math.log(self.pictures))
        if self.training:
            self.log_partitions.copy_(log_partitions)
            self.started.fill_(True)
        return log_partitions

    @torch.no_grad()
    def _remember(self, ours: Tensor, theirs: Tensor, picture: Tensor) -> None:
        picture, ours, theirs = _gathered(picture), _gathered(ours), _gathered(theirs)
        same = (picture[:, None] == picture).float()
        same = same / same.sum(1, keepdim=True)
        keep = self.settings.crd_momentum
        with torch.autocast(picture.device.type, enabled=False):
            for memory, vectors in ((self.student_memory, ours), (self.teacher_memory, theirs)):
                memory[picture] = F.normalize(keep * memory[picture] + (1 - keep) * (same @ vectors), dim=1)


@in_float32
def similarities(vectors: Tensor, memory: Tensor, picture: Tensor, negatives: Tensor) -> Tensor:
    """[B, 1 + K]: inner products of each vector with the memory of its own picture, and with those of the negatives.

    Args:
        vectors: [B, C].
        memory: [pictures, C].
        picture: int64 [B].
        negatives: int64 [K].
    """
    own = (vectors * memory[picture]).sum(1, keepdim=True)
    return torch.cat([own, vectors @ memory[negatives].T], 1)


@in_float32
def contrast(log_density: Tensor, pictures: int) -> Tensor:
    """Noise-contrastive loss: is it the picture itself, or one of K drawn from all? Batch mean of the sum over K + 1.

    With h = exp(similarity / T) / Z and noise of density 1 / pictures, the chance that a candidate is the picture
    itself is h / (h + K / pictures); the loss is its negative log-likelihood (Tian et al., with the partition function
    Z of their code).

    Args:
        log_density: [B, 1 + K], log h, the picture itself first.
        pictures: how many there are.
    """
    log_odds = log_density - math.log((log_density.shape[1] - 1) / pictures)
    return -(F.logsigmoid(log_odds[:, 0]) + F.logsigmoid(-log_odds[:, 1:]).sum(1)).mean()


@in_float32
def _on_sphere(vectors: Tensor) -> Tensor:
    return F.normalize(vectors, dim=1)


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _gathered(values: Tensor) -> Tensor:
    """The rows of all processes, in their order."""
    if _processes() == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(_processes())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)
