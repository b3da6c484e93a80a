"""Stages of feature distillation before anything is loaded: what a plan counts, a cache keeps and a recipe trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field
from pydantic.dataclasses import dataclass as validated_dataclass

from eyespot.config import STRICT
from eyespot.engine.config import OptimConfig

if TYPE_CHECKING:
    from eyespot.distill.committee import Committee
    from eyespot.encoders import Encoder


@validated_dataclass(frozen=True, kw_only=True, config=STRICT)
class StageConfig(OptimConfig):
    """One stage: an optimisation, and what student and teachers look at."""

    student_sizes: tuple[int, ...] = Field(min_length=1)
    """Side of the student's pictures in pixels, rounded to its stride; with several, one is drawn per step."""
    teacher_sizes: tuple[int, ...] = ()
    """The same for teachers that take any size, drawn independently. Empty: each teacher's own default size."""
    adapter_width: int = Field(gt=0)
    """Hidden width of the adapter heads."""
    statistics_steps: int = Field(default=500, gt=0)
    """Batches for the target statistics (never more than the stage has steps)."""


@dataclass(frozen=True, kw_only=True)
class StageOutline:
    """What a stage is going to do, before anything is loaded.

    Attributes:
        name: of the stage, and of its folder.
        students: specs of what is trained, by name; they share the teachers' work. A single one is called "student".
        teachers: specs of its committee; "stage:NAME" is what an earlier stage makes.
        config: the stage.
        max_grid: largest side of the teachers' patch maps, see `Committee`.
        cached: whether the committee's features are kept.
        view_sizes: sides in pixels that the pictures must serve: those of the students, and of other stages that use
            the same cache.
    """

    name: str
    students: Mapping[str, str]
    teachers: tuple[str, ...]
    config: StageConfig
    max_grid: int | None = None
    cached: bool = False
    view_sizes: tuple[int, ...] = ()


def view_size(outline: StageOutline, students: Mapping[str, Encoder], committee: Committee) -> int:
    """Side in pixels of a stage's pictures: made once, as large as anybody looks at them."""
    sides = outline.config.teacher_sizes or (None,)
    wanted = [max(teacher.fitting_size(side)) for _, teacher in committee.items() for side in sides]
    wanted += [max(student.fitting_size(side)) for student in students.values() for side in outline.view_sizes]
    return max(wanted)
