"""What there is to decide about probes during training."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from eyespot.config import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ProbesConfig:
    """What is measured of a model while it is trained. It changes nothing in the training."""

    every: int = Field(default=0, ge=0)
    """Steps between two probes, which run in the background; every stage also ends with one. 0 for none."""
    tasks: list[str] = field(default_factory=list)
    """Tasks of `eyespot evaluate`. Empty: those that data names, else knn and segmentation."""
    data: list[str] = field(default_factory=lambda: ["toybox"])
    """toybox, or TASK=FOLDER for each task, as for `eyespot evaluate`."""
    limit: int = Field(default=300, gt=0)
    """At most this many pictures per split."""
    size: int | None = Field(default=None, gt=0)
    """Side of the pictures in pixels, the same in all stages; the largest that the student is trained at if None."""
    device: Literal["same", "cpu"] = "same"
    """Where the copy of the model is: where it is trained, or on the CPU, which saves the device's memory."""
