"""EUPE: many experts -> one large proxy -> one small student, at one resolution, then at several.

"Efficient Universal Perception Encoder", arXiv 2603.22387, section 4. Three stages, each a feature distillation:

1. scale up: the proxy learns from all teachers at once, each looking at its native size;
2. scale down: the student learns from the frozen proxy alone, at one resolution;
3. multi-resolution finetuning: student and proxy draw their resolutions independently in every step.

Without a proxy (`proxy: null`) stage 2 distils the teachers straight into the student: the paper's direct baseline,
the same Task with another committee.

Ours, where the paper is silent: the proxy's architecture and stage 1's schedule (set by the presets); AdamW, short
warm-up, cosine to zero; augmentation parameters; student and teachers see the same view; grids are matched after the
adapter head; statistics take no more batches than the stage has steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Any, Self

from pydantic import field_validator
from pydantic.dataclasses import dataclass

from eyespot.config import STRICT
from eyespot.data import DataConfig, plain_list_of_sources
from eyespot.distill.cache import CacheConfig
from eyespot.distill.committee import Committee, load_committee
from eyespot.distill.warm_start import new_encoder
from eyespot.encoders import Encoder, load_encoder
from eyespot.encoders.lineage import lineage
from eyespot.encoders.naming import has_random_weights, model_name, short_names, to_train
from eyespot.encoders.permissive import require_permissive
from eyespot.engine.config import EngineConfig
from eyespot.engine.run import RunFolder, as_plain
from eyespot.engine.strategy import start_fabric
from eyespot.evaluate import ResultTable
from eyespot.evaluate.config import ProbesConfig
from eyespot.files import atomic_write_text
from eyespot.report.pages.run import RunStory, write_run_report, write_student
from eyespot.runs.settings import RUNTIME_ONLY
from eyespot.runs.stage import StageConfig, StageOutline, StageRunner, StandardizerKind

STAGE_1, STAGE_2, STAGE_3 = "stage-1-proxy", "stage-2-student", "stage-3-multires"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StudentConfig:
    """The compact encoders that the recipe makes."""

    model: list[str] = field(default_factory=lambda: ["timm/vit_tiny_patch16_dinov3_qkvb"])
    """Specs. Several learn side by side from one look of the teachers, each as if it were alone, and get a folder each.
    timm models start from random weights unless the spec says ?pretrained=true."""
    start: list[str] = field(default_factory=list)
    """Finished stages 2 (run/RUN/stage-2-student), one per model, to begin with; leaves stage 2 out."""

    @field_validator("model", "start", mode="before")
    @classmethod
    def _one_as_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value or []


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EupeConfig:
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
    steps: int | None = None
    """Overrides the steps of every stage that is not left out, and shortens warm-ups in proportion."""
    permissive_only: bool = False
    """Refuse, before anything is trained, teachers, finished proxies and released starting weights whose licence does
    not plainly allow commercial use; unknown licences are refused too (docs/licences.md)."""
    seed: int = 0
    """Names every random draw of the run; the pictures' order and views follow data.seed."""
    engine: EngineConfig = field(default_factory=EngineConfig)
    """Precision, devices, logging, checkpoints."""
    probes: ProbesConfig = field(default_factory=ProbesConfig)
    """What is measured of the models while they are trained."""

    _sources_alone = field_validator("data", mode="before")(plain_list_of_sources)

    def checked(self) -> Self:
        """The configuration itself, if it makes a whole run.

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
        return self

    @property
    def has_finished_proxy(self) -> bool:
        """Whether `proxy` names a finished one."""
        return self.proxy is not None and self.proxy.startswith("run/")

    @property
    def learnt_from(self) -> list[str]:
        """Specs of all models whose weights reach the student: teachers, finished proxy, released starting weights."""
        begun = self.student.start or self.student.model
        starts = [to_train(spec) for spec in (self.proxy, *begun) if spec]
        return [*self.teachers, *(spec for spec in starts if not has_random_weights(spec))]

    @property
    def students(self) -> dict[str, str]:
        """Specs of the students by name; a single one is called "student"."""
        models = [to_train(spec) for spec in self.student.model]
        return {"student": models[0]} if len(models) == 1 else dict(zip(short_names(models), models, strict=True))

    def resolved(self) -> EupeConfig:
        """The same configuration with `steps` written into the stages."""
        if self.steps is None:
            return self
        stage1, stage2, stage3 = (stage.with_steps(self.steps) for stage in (self.stage1, self.stage2, self.stage3))
        return replace(self, steps=None, stage1=stage1, stage2=stage2, stage3=stage3)


def distill(
    config: EupeConfig, output: str | Path, measure: Callable[[dict[str, Encoder]], ResultTable] | None = None
) -> Path:
    """Trains proxy and student, or continues where an earlier call with the same configuration stopped.

    Args:
        config: see `EupeConfig`; presets are in `presets/eupe/`.
        output: the run folder.
        measure: called with the finished models by name; its table goes into results.json, card and report. Not called
            again for a run that has been measured.

    Returns:
        Folder of the student, ready for `load_encoder("run/...")` and timm; with several students, the folder that
        holds a folder for each.

    Raises:
        RunMismatchError: the folder holds a run of another configuration.
        ValueError: the configuration makes no whole run, or names models that `permissive_only` refuses.
    """
    config = config.checked().resolved()
    if config.permissive_only:
        require_permissive(config.learnt_from)
    fabric = start_fabric(config.engine)
    run = RunFolder(output, as_plain(config), free=RUNTIME_ONLY)
    todo = {stage.name: stage for stage in outline(config)}
    stages = StageRunner(
        fabric=fabric,
        folder=run.path,
        data=config.data,
        engine=config.engine,
        seed=config.seed,
        standardizer=config.standardizer,
        cache=config.cache,
    )
    stages.watch(config.probes, max(config.stage2.student_sizes))
    experts = load_committee(config.teachers, config.max_grid) if config.teachers else None
    if fabric.is_global_zero:
        run.write_config(as_plain(config))

    # Stage 1, scaling up: the frozen experts teach one large proxy.
    proxy: Encoder | None = None
    if STAGE_1 in todo:
        assert experts is not None and config.proxy is not None
        untrained = {"student": new_encoder(config.proxy, config.seed, "proxy")}
        proxy = stages.run(todo[STAGE_1], untrained, experts)["student"]
    elif config.proxy is not None:
        proxy = load_encoder(config.proxy)

    # Stage 2, scaling down at one resolution: the proxy alone teaches the students. Without a proxy, the experts do.
    committee = Committee({"proxy": proxy}) if proxy else experts
    assert committee is not None
    starts = dict(zip(config.students, config.student.start or config.students.values(), strict=True))
    students = {name: new_encoder(spec, config.seed, "student") for name, spec in starts.items()}
    if STAGE_2 in todo:
        students = stages.run(todo[STAGE_2], students, committee)

    # Stage 3, several resolutions, drawn independently for students and proxy.
    if STAGE_3 in todo:
        students = stages.run(todo[STAGE_3], students, committee)

    if fabric.is_global_zero:
        story = _story(config, run, stages, committee, experts, proxy, students, measure)
        for name, student in students.items():
            write_student(run, name, student, story)
        write_run_report(run, story)
    fabric.barrier()
    return run.student if len(students) == 1 else run.students


def outline(config: EupeConfig) -> list[StageOutline]:
    """The stages that a configuration has, in order."""
    config = config.resolved()
    stages = []
    has_proxy = config.proxy is not None
    if config.proxy is not None and not config.has_finished_proxy:
        stages.append(_taught_by_experts(config, STAGE_1, {"student": to_train(config.proxy)}, config.stage1))
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


def _story(
    config: EupeConfig,
    run: RunFolder,
    stages: StageRunner,
    committee: Committee,
    experts: Committee | None,
    proxy: Encoder | None,
    students: Mapping[str, Encoder],
    measure: Callable[[dict[str, Encoder]], ResultTable] | None,
) -> RunStory:
    """What report and cards tell, measured first."""
    teachers = {
        entry["name"]: entry for student in students.values() for entry in lineage(committee.teachers.values(), student)
    }
    side = max(config.stage2.student_sizes)
    encoders = dict(experts.items()) if experts else {}
    encoders |= {"proxy": proxy} if proxy else {}
    encoders |= students
    if measure is not None and not run.results.exists():
        atomic_write_text(run.results, measure(encoders).to_json())
    names = ", ".join(short_names(teachers))
    way = f"through the proxy {model_name(config.proxy)}" if config.proxy else "directly"
    made = "One encoder" if len(students) == 1 else f"{len(students)} encoders"
    of = "one teacher" if len(teachers) == 1 else f"{len(teachers)} teachers"
    return RunStory(
        titles={
            name: f"{model_name(spec)}, distilled by EUPE"
            for name, spec in zip(students, config.student.model, strict=True)
        },
        summary=f"{made} that learned from {of} ({names}), {way}, without labels.",
        teachers=list(teachers.values()),
        data=config.data.sources,
        config=as_plain(config),
        encoders=encoders,
        pictures=stages.sample_pictures(6, 2 * side),
        size=2 * side,
        results=ResultTable.from_json(run.results.read_text()) if run.results.exists() else None,
        failures=stages.failures,
    )
