"""The verb that examines a committee before a training."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro


def audit(
    teachers: Annotated[list[str], tyro.conf.Positional],
    data: list[str],
    steps: int = 300,
    seeds: tuple[int, ...] = (0, 1, 2),
    student: str = "timm/vit_tiny_patch16_dinov3_qkvb",
    size: int = 96,
    teacher_size: int | None = None,
    batch: int = 16,
    learning_rate: float = 1e-3,
    adapter_width: int = 256,
    held_out: int = 256,
    tolerance: float = 0.01,
    accelerator: str = "auto",
    precision: Literal["32-true", "bf16-mixed"] = "bf16-mixed",
    workers: int = 0,
    output: Path | None = None,
) -> None:
    """Say which teachers of a committee complement each other and which fight, before a long training.

    Small students learn side by side from all teachers, from all but each one, and from each one alone; every two
    teachers get a verdict. See docs/committee-audit.md.

    Args:
        teachers: specs of at least two, e.g. onnx/depth.onnx timm/vit_base_patch16_dinov3.lvd1689m.
        data: folders, shards or toybox; no labels are used.
        steps: training steps of each student; 0 compares the teachers alone, which takes no training.
        seeds: one experiment each; at least two, or there is no spread to judge by.
        student: spec of the students, random weights unless it says otherwise; take the kind that you will train.
        size: side of their pictures in pixels.
        teacher_size: the same for teachers that take any size; their own default otherwise.
        batch: pictures per step.
        learning_rate: peak of the cosine.
        adapter_width: hidden width of the adapter heads.
        held_out: pictures that nobody learns from, on which everything is measured.
        tolerance: interference up to this share of a loss counts as none.
        accelerator: cpu, cuda, mps or auto.
        precision: what students and teachers compute in while training.
        workers: processes that read pictures.
        output: folder for audit.md, audit.json and finished seeds; the same command again continues.
    """
    from eyespot.audit import AuditConfig
    from eyespot.audit import audit as run
    from eyespot.audit.config import VIEW
    from eyespot.audit.markdown import markdown_of
    from eyespot.data import DataConfig
    from eyespot.engine.config import EngineConfig

    config = AuditConfig(
        student=student,
        size=size,
        teacher_size=teacher_size,
        steps=steps,
        batch_size=batch,
        learning_rate=learning_rate,
        adapter_width=adapter_width,
        seeds=seeds,
        held_out=held_out,
        tolerance=tolerance,
        engine=EngineConfig(accelerator=accelerator, precision=precision, tensorboard=False),
    )
    found = run(teachers, DataConfig(sources=data, view=VIEW, workers=workers), config, output, say=_say)
    print(markdown_of(found), end="")
    if output is not None:
        print(f"\nwritten: {output}/audit.md and audit.json")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
