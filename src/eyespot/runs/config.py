"""What there is to decide about the run of any recipe."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import field
from typing import Self

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from eyespot.config import STRICT
from eyespot.data import DataConfig, plain_list_of_sources
from eyespot.engine.config import EngineConfig
from eyespot.evaluate.config import ProbesConfig

RUNTIME_ONLY = (
    "permissive_only",
    "data.workers",
    "data.keep_decoded",
    "engine.accelerator",
    "engine.devices",
    "engine.nodes",
    "engine.strategy",
    "engine.shard_teachers",
    "engine.activation_checkpointing",
    "engine.max_tokens",
    "engine.compile",
    "engine.log_every",
    "engine.checkpoint_every",
    "engine.keep_checkpoints",
    "engine.tensorboard",
    "engine.progress",
    "probes",
    "probes.every",
    "probes.tasks",
    "probes.data",
    "probes.limit",
    "probes.size",
    "probes.device",
)
"""Settings of every recipe that may change when a run is continued, because they do not touch its result."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RunConfig(ABC):
    """What all recipes share. A recipe's own class adds teachers, students, stages and the terms of its loss."""

    data: DataConfig
    """Pictures."""
    steps: int | None = Field(default=None, gt=0)
    """Overrides the steps of every stage that is not left out, and shortens warm-ups and decays in proportion."""
    permissive_only: bool = False
    """Refuse, before anything is trained, teachers and released starting weights whose licence does not plainly allow
    commercial use; unknown licences are refused too (docs/licences.md)."""
    seed: int = 0
    """Names every random draw of the run; the pictures' order and views follow data.seed."""
    engine: EngineConfig = field(default_factory=EngineConfig)
    """Precision, devices, logging, checkpoints."""
    probes: ProbesConfig = field(default_factory=ProbesConfig)
    """What is measured of the models while they are trained."""

    _sources_alone = field_validator("data", mode="before")(plain_list_of_sources)

    @abstractmethod
    def checked(self) -> Self:
        """The configuration itself, if it makes a whole run, with `steps` written into the stages.

        Raises:
            ValueError: it does not; says what is missing.
        """

    @property
    @abstractmethod
    def learnt_from(self) -> list[str]:
        """Specs of all models whose weights reach the students: teachers, and released starting weights."""
