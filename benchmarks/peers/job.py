"""Job: one training as every loop here understands it, and the models it is about. Knows torch and timm, no more."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

Losses = Literal["pooled", "patches", "similarity"]
Watch = Callable[[nn.Module], None]

FREE_SIZE = ("vit_", "test_vit")
"""Models that take other sizes only when asked to (dynamic_img_size)."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training.

    Attributes:
        loop: module of this folder that trains.
        losses: what the student is taught; see `criteria`. LightlyTrain knows "similarity" alone, timm and torchdistill
            "pooled".
        student: timm name and weight file ("" for random weights).
        teachers: the same of each teacher.
        size: side of the pictures in pixels.
        batch_size: pictures per step.
        steps: optimiser steps.
        learning_rate: peak; a tenth of the steps warms up, then a cosine goes to 0.
        weight_decay: of AdamW.
        precision: of the matrix products.
        pictures: folder of JPEG files, or "" for one random batch in memory.
        views: how they are augmented: "crop" crops and mirrors; "colour" then changes colours, blurs and solarizes.
        folder: where the loop may write.
        output: file for the trained student ("" keeps none).
        seed: of everything drawn.
        timed: whether the steps are released and timed by somebody else; see `stopwatch`.
        adapter_width: hidden width of the heads of the "patches" losses.
        queue: teacher vectors that the "similarity" losses remember.
        standardizer: of eyespot alone.
    """

    loop: str
    losses: Losses
    student: tuple[str, str]
    teachers: tuple[tuple[str, str], ...]
    size: int
    batch_size: int
    steps: int
    learning_rate: float
    weight_decay: float = 0.04
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    pictures: str = ""
    views: Literal["crop", "colour"] = "crop"
    folder: str
    output: str = ""
    seed: int = 0
    timed: bool = False
    adapter_width: int = 256
    queue: int = 512
    standardizer: str = "channel"

    def to_json(self) -> str:
        """For a process elsewhere."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """What `to_json` wrote."""
        fields: dict[str, Any] = json.loads(text)
        fields["student"] = tuple(fields["student"])
        fields["teachers"] = tuple(tuple(teacher) for teacher in fields["teachers"])
        return cls(**fields)

    @property
    def warmup_steps(self) -> int:
        """Steps of linear warm-up."""
        return self.steps // 10

    @property
    def teacher(self) -> tuple[str, str]:
        """The only teacher.

        Raises:
            ValueError: there are several, which no peer can take.
        """
        if len(self.teachers) != 1:
            raise ValueError(f"{self.loop} takes one teacher, not {len(self.teachers)}")
        return self.teachers[0]


def build(name: str, weights: str) -> Any:
    """A timm model without classifier."""
    free: dict[str, Any] = {"dynamic_img_size": True} if name.startswith(FREE_SIZE) else {}
    model = timm.create_model(name, pretrained=False, num_classes=0, **free)
    if weights:
        model.load_state_dict(load_file(weights))
    return model


def models(job: Job) -> tuple[Any, Any]:
    """(student, frozen teacher) of a job with one teacher.

    Raises:
        ValueError: they normalise differently. Not all peers can do that, so no comparison here asks for it.
    """
    torch.manual_seed(job.seed)
    student, teacher = build(*job.student), build(*job.teacher)
    if statistics(student) != statistics(teacher):
        raise ValueError(f"{job.student[0]} and {job.teacher[0]} normalise differently; take a pair that does not")
    return student.train(), teacher.eval().requires_grad_(False)


def statistics(model: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) per colour that the model wants."""
    return tuple(model.pretrained_cfg["mean"]), tuple(model.pretrained_cfg["std"])


def features(model: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """(summary [B, C], patches [B, N, D]) of normalised pictures: what timm's head sees, and the map in its space."""
    seen = model.forward_features(images)
    summary: Tensor = model.forward_head(seen, pre_logits=True)
    if seen.ndim == 4:
        return summary, seen.flatten(2).transpose(1, 2)
    return summary, model.fc_norm(seen[:, model.num_prefix_tokens :])


def widths(model: Any, size: int) -> tuple[int, int]:
    """(C, D) of `features`."""
    with torch.no_grad():
        summary, patches = features(model.eval(), torch.zeros(1, 3, size, size))
    return summary.shape[1], patches.shape[2]
