"""What there is to decide about an audit."""

from __future__ import annotations

from dataclasses import field
from typing import Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from eyespot.config import STRICT
from eyespot.data import ViewConfig
from eyespot.engine.config import EngineConfig, OptimConfig

VIEW = ViewConfig(scale=(0.3, 1.0), blur=0.0, solarize=0.0)
"""Views of the training pictures: those of the preset `laptop`, since an audit is as short as a run with it."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AuditConfig:
    """A small leave-one-out experiment. All defaults are ours."""

    student: str = "timm/vit_tiny_patch16_dinov3_qkvb"
    """Spec of the students, a few million parameters; timm models start from random weights unless the spec says
    ?pretrained=true. Take the kind that will be trained later."""
    size: int = Field(default=96, gt=0)
    """Side of the students' pictures in pixels, rounded to their stride."""
    teacher_size: int | None = Field(default=None, gt=0)
    """The same for teachers that take any size; None: each one's own default."""
    max_grid: int | None = Field(default=14, gt=0)
    """Largest side of the teachers' patch maps; finer ones are averaged down to it."""
    steps: int = Field(default=300, ge=0)
    """Training steps of every student; 0 trains none and leaves similarity and the gradients at the start."""
    batch_size: int = Field(default=16, gt=0)
    """Pictures per step."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak of the cosine."""
    adapter_width: int = Field(default=256, gt=0)
    """Hidden width of the adapter heads."""
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    """One experiment per seed, with other starting weights, another order and other views of the pictures. Without at
    least two there is no spread and no verdict."""
    held_out: int = Field(default=256, ge=8)
    """Pictures that nobody learns from, on which everything is measured."""
    conflict_steps: int = Field(default=20, gt=0)
    """After so many steps the teachers' gradients are compared once more."""
    tolerance: float = Field(default=0.01, ge=0)
    """Interference up to this share of a loss counts as none, however small its spread."""
    engine: EngineConfig = field(default_factory=lambda: EngineConfig(tensorboard=False))
    """Accelerator, precision, progress bar."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {' '.join(map(str, self.seeds))} name one seed twice; equal seeds give equal runs")
        if self.engine.devices * self.engine.nodes > 1:
            raise ValueError("an audit runs in one process; set engine.devices and engine.nodes to 1")
        return self

    @property
    def optim(self) -> OptimConfig:
        """The optimisation of one seed's students: that of the preset `laptop` but for length and learning rate."""
        return OptimConfig(
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            warmup_steps=self.steps // 15,
            weight_decay=0.05,
            clip_norm=3.0,
        )
