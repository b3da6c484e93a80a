"""What there is to decide about an EUPE run, and which stages follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Self

from pydantic.dataclasses import dataclass

from eyespot.config import STRICT, OneOrMore
from eyespot.data import DataConfig
from eyespot.distill.cache import CacheConfig
from eyespot.distill.features.config import StandardizerKind
from eyespot.encoders.naming import has_random_weights, short_names, trainable_spec
from eyespot.runs.config import RunConfig
from eyespot.runs.outline import StageConfig, StageOutline

STAGE_1, STAGE_2, STAGE_3 = "stage-1-proxy", "stage-2-student", "stage-3-multires"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StudentConfig:
    """The compact encoders that the recipe makes."""

    model: OneOrMore[str] = field(default_factory=lambda: ["timm/vit_tiny_patch16_dinov3_qkvb"])
    """Specs. Several learn side by side from one pass of the teachers, each as if it were alone, and get a folder each.
    timm models start from random weights unless the spec says ?pretrained=true."""
    start: OneOrMore[str] = field(default_factory=list)
    """Finished stages 2 (run/RUN/stage-2-student), one per model, to begin with; leaves stage 2 out."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EupeConfig(RunConfig):
    """Everything there is to decide about an EUPE run."""

    teachers: list[str]
    """Specs of the experts, e.g. onnx/depth.onnx timm/vit_base_patch16_dinov3.lvd1689m."""
    data: DataConfig
    """Pictures, without labels."""
    proxy: str | None
    """A model to train as proxy in stage 1 (timm/...), a finished proxy (run/...) that makes stage 1 unnecessary, or
    null to distil the teachers straight into the student."""
    student: StudentConfig = field(default_factory=StudentConfig)
    """The student."""
    stage1: StageConfig
    """Teachers to proxy, scaling up."""
    stage2: StageConfig
    """Proxy to student, at one resolution."""
    stage3: StageConfig
    """Proxy to student, at several resolutions; steps: 0 leaves it out."""
    standardizer: StandardizerKind = "channel"
    """How teacher features are put on one scale."""
    max_grid: int | None = None
    """Largest side of the teachers' patch maps; finer ones are averaged down to it."""
    cache: CacheConfig = field(default_factory=CacheConfig)
    """Where the experts' features are kept, to compute each only once, and how precisely. Needs data.views, which then
    holds for the stages that the experts teach; where a proxy teaches, every epoch brings new views."""

    def checked(self) -> Self:
        """The configuration itself, if it makes a whole run, with `steps` written into the stages.

        Raises:
            ValueError: it does not; says what is missing.
        """
        if not self.teachers and not self.has_finished_proxy:
            raise ValueError("teachers is empty: name the experts to distil, e.g. --teachers onnx/depth.onnx timm/NAME")
        if not self.student.model:
            raise ValueError("student.model is empty: name at least one model to train")
        if not self.student.start and self.stage2.steps == 0:
            raise ValueError("stage2.steps is 0, but no finished stage 2 is given in student.start")
        if self.student.start and self.stage3.steps == 0:
            raise ValueError("student.start leaves out stage 2 and stage3.steps is 0: nothing would be trained")
        if self.student.start and len(self.student.start) != len(self.student.model):
            raise ValueError(
                f"student.start names {len(self.student.start)} finished stages, student.model "
                f"{len(self.student.model)} models; give one per model"
            )
        return self.resolved()

    def resolved(self) -> Self:
        """The same configuration with `steps` written into the stages, whole or not."""
        if self.steps is None:
            return self
        stage1, stage2, stage3 = (stage.with_steps(self.steps) for stage in (self.stage1, self.stage2, self.stage3))
        return replace(self, steps=None, stage1=stage1, stage2=stage2, stage3=stage3)

    @property
    def has_finished_proxy(self) -> bool:
        """Whether `proxy` names a finished one."""
        return self.proxy is not None and self.proxy.startswith("run/")

    @property
    def learnt_from(self) -> list[str]:
        """Specs of all models whose weights reach the student: teachers, finished proxy, released starting weights."""
        begun = self.student.start or self.student.model
        starts = [trainable_spec(spec) for spec in (self.proxy, *begun) if spec]
        return [*self.teachers, *(spec for spec in starts if not has_random_weights(spec))]

    @property
    def students(self) -> dict[str, str]:
        """Specs of the students by name; a single one is called "student"."""
        models = [trainable_spec(spec) for spec in self.student.model]
        return {"student": models[0]} if len(models) == 1 else dict(zip(short_names(models), models, strict=True))


def outline(config: EupeConfig) -> list[StageOutline]:
    """The stages that a configuration has, in order."""
    config = config.resolved()
    stages = []
    has_proxy = config.proxy is not None
    if config.proxy is not None and not config.has_finished_proxy:
        stages.append(_taught_by_experts(config, STAGE_1, {"student": trainable_spec(config.proxy)}, config.stage1))
    if config.student.start:
        second, third = None, dict(zip(config.students, config.student.start, strict=True))
    else:
        second = third = config.students
    for name, students, stage in ((STAGE_2, second, config.stage2), (STAGE_3, third, config.stage3)):
        if students is None or stage.steps == 0:
            continue
        if has_proxy:
            teacher = config.proxy if config.has_finished_proxy else f"stage:{STAGE_1}"
            sizes = stage.student_sizes
            stages.append(
                StageOutline(name=name, students=students, teachers=(str(teacher),), config=stage, view_sizes=sizes)
            )
        else:
            stages.append(_taught_by_experts(config, name, students, stage))
    return stages


def _taught_by_experts(config: EupeConfig, name: str, students: Mapping[str, str], stage: StageConfig) -> StageOutline:
    """A stage whose committee are the experts, and whose features can be kept."""
    cached = config.cache.folder is not None and not stage.teacher_sizes
    sizes = stage.student_sizes
    if cached and config.proxy is None:  # stages 2 and 3 use the same views
        sizes = tuple(sorted({*config.stage2.student_sizes, *config.stage3.student_sizes}))
    return StageOutline(
        name=name,
        students=students,
        teachers=tuple(config.teachers),
        config=stage,
        max_grid=config.max_grid,
        cached=cached,
        view_sizes=sizes,
    )
