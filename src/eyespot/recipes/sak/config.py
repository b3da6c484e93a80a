"""What there is to decide about a SAK run."""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from dataclasses import field, replace
from typing import Literal, Self

from pydantic import Field
from pydantic.dataclasses import dataclass

from eyespot.config import STRICT, OneOrMore
from eyespot.data import DataConfig
from eyespot.data.views.config import PairedViewConfig
from eyespot.distill.features.config import StandardizerKind
from eyespot.encoders.multitask.config import RouterKind
from eyespot.encoders.naming import has_random_weights, trainable_spec
from eyespot.engine.config import OptimConfig
from eyespot.runs.config import RunConfig

SINGLE = "single_task-"
"""How the names of single-task models begin; the task follows."""

Teaching = Literal["paths", "shared", "none"]
PathLoss = Literal["cos+l1", "cos", "l2"]
Inputs = Literal["own", "as_published"]
Form = Literal["sak", "no_router", "many_to_one", "multi_task", "single_task"]


@plain_dataclass(frozen=True)
class FormFacts:
    """What makes a form of the student: how it is taught, and how it mixes stem and paths."""

    teaching: Teaching
    router: RouterKind


FORMS: dict[Form, FormFacts] = {
    "sak": FormFacts("paths", "mor"),
    "no_router": FormFacts("paths", "sum"),
    "many_to_one": FormFacts("shared", "sum"),
    "multi_task": FormFacts("none", "sum"),
    "single_task": FormFacts("none", "sum"),
}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SakStudents:
    """The multi-task models that the recipe makes."""

    model: str = "timm/vit_small_patch16_384.augreg_in21k_ft_in1k?pretrained=true"
    """Spec of the stem: a ViT of timm, with random weights unless the spec says ?pretrained=true."""
    form: OneOrMore[Form] = field(default_factory=lambda: ["sak"])
    """sak, and what it is compared with: no_router, many_to_one, multi_task, single_task."""
    start: str | None = None
    """A finished SAK run (run/FOLDER) to add the teachers to that it does not know yet."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LabelledConfig:
    """The pictures of stage 2, with maps for every task."""

    source: str
    """camvid:FOLDER, kitchen:FOLDER, coco:FOLDER, nyud:FOLDER, pascal_context:FOLDER or toybox[:COUNT[@SIZE]]; with
    ?tasks=segmentation+boundary for a choice of its tasks, &height=96&width=128 for pictures of another size."""
    view: PairedViewConfig
    """Size of the pictures, and how they are scaled, cut, mirrored and coloured."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PathStageConfig(OptimConfig):
    """Stage 1: an optimisation, and the size of the pictures."""

    student_size: int = Field(gt=0)
    """Side of the square pictures in pixels, rounded to the stride of the student."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SakConfig(RunConfig):
    """Everything there is to decide about a SAK run."""

    teachers: list[str]
    """Specs of the experts, e.g. onnx/depth.onnx timm/samvit_base_patch16.sa1b."""
    data: DataConfig
    """Pictures of stage 1, without labels."""
    labelled: LabelledConfig
    """Pictures of stage 2, with labels."""
    student: SakStudents = field(default_factory=SakStudents)
    """The students."""
    stage1: PathStageConfig
    """Teachers to paths, without labels; steps: 0 leaves it out."""
    stage2: OptimConfig
    """All tasks, with the teachers kept on; steps: 0 leaves it out."""
    alpha: float = Field(default=1.0, ge=0)
    """Weight of the teachers' loss in stage 2; 0 leaves the teachers out there."""
    path_loss: PathLoss = "cos+l1"
    """How far a map is from a teacher's: cos+l1 (0.9 and 0.1), cos or l2."""
    standardizer: StandardizerKind = "none"
    """How teachers' maps are put on one scale: none as in the paper, or as in EUPE (channel)."""
    inputs: Inputs = "own"
    """What teachers see: their own normalisation and size, or all the same as_published."""
    max_grid: int | None = None
    """Largest side of the teachers' maps; finer ones are averaged down to it."""
    statistics_steps: int = Field(default=100, gt=0)
    """Batches for the statistics of a standardizer."""

    def checked(self) -> Self:
        """The configuration itself, if it makes a whole run, with `steps` written into the stages.

        Raises:
            ValueError: it does not; says what is missing.
        """
        if not self.student.form:
            raise ValueError(f"student.form is empty; choose from {', '.join(FORMS)}")
        if not self.teachers and any(FORMS[form].teaching != "none" for form in self.student.form):
            raise ValueError("teachers is empty: name the experts, e.g. --teachers onnx/depth.onnx timm/NAME")
        if self.student.start and self.student.form not in (["sak"], ["no_router"]):
            raise ValueError("student.start continues one model with paths: set student.form to sak or no_router")
        if self.stage1.steps == 0 and self.stage2.steps == 0:
            raise ValueError("stage1.steps and stage2.steps are 0: nothing would be trained")
        if self.steps is None:
            return self
        first, second = self.stage1.with_steps(self.steps), self.stage2.with_steps(self.steps)
        return replace(self, steps=None, stage1=first, stage2=second)

    @property
    def teachings(self) -> list[Teaching]:
        """In how many ways the students of this configuration are taught."""
        return list(dict.fromkeys(FORMS[form].teaching for form in self.student.form))

    @property
    def learnt_from(self) -> list[str]:
        """Specs of all models whose weights reach the students."""
        start = self.student.start or trainable_spec(self.student.model)
        return [*self.teachers, *([] if has_random_weights(start) else [start])]
