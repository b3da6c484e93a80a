"""The run of a multi-task recipe: from the configuration to the students' folders and the report.

The recipe says in which order what is done; see `eyespot.recipes.sak.recipe`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass as plain_dataclass
from dataclasses import field, replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass
from torch import nn

from eyespot.config import STRICT
from eyespot.data import DataConfig, plain_list_of_sources
from eyespot.data.loading.batch_loader import BatchLoader
from eyespot.data.loading.maps import MultiTaskLoader
from eyespot.data.sets.opening import open_multitask
from eyespot.data.views.config import PairedViewConfig
from eyespot.distill.warm_start import new_encoder
from eyespot.encoders import Encoder, load_encoder
from eyespot.encoders.lineage import lineage
from eyespot.encoders.multitask import MultiTaskEncoder, make_multitask_encoder
from eyespot.encoders.multitask.model import RouterKind
from eyespot.encoders.naming import has_random_weights, model_name, short_names, to_train
from eyespot.encoders.permissive import require_permissive
from eyespot.engine.config import EngineConfig, OptimConfig
from eyespot.engine.run import RunFolder, as_plain
from eyespot.engine.strategy import start_fabric, whole
from eyespot.evaluate import ResultTable, evaluate
from eyespot.evaluate.config import ProbesConfig
from eyespot.evaluate.protocols.multitask.table import with_delta_m
from eyespot.files import atomic_write_text
from eyespot.randomness import seed_everything
from eyespot.recipes.sak.level_teachers import Inputs, LevelTeachers, depths_of
from eyespot.recipes.sak.path_losses import PathLoss
from eyespot.recipes.sak.path_training import MultiTaskStudent, PathTraining, Teaching
from eyespot.report.exhibits.multitask import Answers, Routing
from eyespot.report.pages.run import RunStory, write_run_report, write_student
from eyespot.runs.settings import RUNTIME_ONLY
from eyespot.runs.stage import StandardizerKind
from eyespot.runs.stage_training import StageTrainer

STAGE_1, STAGE_2 = "stage-1-paths", "stage-2-tasks"
SINGLE = "single_task-"
"""How the names of single-task models begin; the task follows."""

Form = Literal["sak", "no_router", "many_to_one", "multi_task", "single_task"]


@plain_dataclass(frozen=True)
class _FormFacts:
    teaching: Teaching
    router: RouterKind


Measure = Callable[[dict[str, Encoder]], ResultTable]

FORMS: dict[Form, _FormFacts] = {
    "sak": _FormFacts("paths", "mor"),
    "no_router": _FormFacts("paths", "sum"),
    "many_to_one": _FormFacts("shared", "sum"),
    "multi_task": _FormFacts("none", "sum"),
    "single_task": _FormFacts("none", "sum"),
}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MultiTaskStudents:
    """The multi-task models that the recipe makes."""

    model: str = "timm/vit_small_patch16_384.augreg_in21k_ft_in1k?pretrained=true"
    """Spec of the stem: a ViT of timm, with random weights unless the spec says ?pretrained=true."""
    form: list[Form] = field(default_factory=lambda: ["sak"])
    """sak, and what it is compared with: no_router, many_to_one, multi_task, single_task."""
    start: str | None = None
    """A finished SAK run (run/FOLDER) to add the teachers to that it does not know yet."""

    @field_validator("form", mode="before")
    @classmethod
    def _one_as_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LabelledConfig:
    """The pictures of stage 2, with maps for every task."""

    source: str
    """camvid:FOLDER, kitchen:FOLDER, coco:FOLDER, nyud:FOLDER, pascal_context:FOLDER or toybox[:COUNT[@SIZE]]; with
    ?tasks=segmentation+boundary for a choice of its tasks, &height=96&width=128 for pictures of another size."""
    view: PairedViewConfig
    """Size of the pictures, and how they are scaled, cut, mirrored and coloured."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PathStage(OptimConfig):
    """Stage 1: an optimisation, and the size of the pictures."""

    student_size: int = Field(gt=0)
    """Side of the square pictures in pixels, rounded to the stride of the student."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MultiTaskConfig:
    """Everything there is to decide about the run of a multi-task recipe."""

    teachers: list[str]
    """Specs of the experts, e.g. onnx/depth.onnx timm/samvit_base_patch16.sa1b."""
    data: DataConfig
    """Pictures of stage 1, without labels."""
    labelled: LabelledConfig
    """Pictures of stage 2, with labels."""
    student: MultiTaskStudents = field(default_factory=MultiTaskStudents)
    """The students."""
    stage1: PathStage
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
    steps: int | None = Field(default=None, gt=0)
    """Overrides the steps of both stages, where they are not left out, and shortens warm-ups in proportion."""
    permissive_only: bool = False
    """Refuse teachers and released starting weights whose licence does not plainly allow commercial use."""
    seed: int = 0
    """Names every random draw of the run; the pictures' order and views follow data.seed."""
    engine: EngineConfig = field(default_factory=EngineConfig)
    """Precision, devices, logging, checkpoints."""
    probes: ProbesConfig = field(default_factory=ProbesConfig)
    """What is measured of the students while they are trained."""

    _sources_alone = field_validator("data", mode="before")(plain_list_of_sources)

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
        start = self.student.start or to_train(self.student.model)
        return [*self.teachers, *([] if has_random_weights(start) else [start])]


class MultiTaskRun:
    """One run of the recipe sak: opens it, builds and trains the students, and writes what came out.

    Args:
        config: of the recipe.
        output: the run folder.

    Attributes:
        config: checked.
        labelled: the training pictures of stage 2.
        teachers: all of them, by the names of their paths.
        start: the finished model that is continued, if any.
        new_teachers: names of those that have no path yet.

    Raises:
        RunMismatchError: the folder holds a run of another configuration.
        ValueError: the configuration makes no whole run, or names models that `permissive_only` refuses.
    """

    def __init__(self, config: MultiTaskConfig, output: str | Path) -> None:
        self.config = config = config.checked()
        if config.permissive_only:
            require_permissive(config.learnt_from)
        self.fabric = start_fabric(config.engine)
        self.run = RunFolder(output, as_plain(config), free=RUNTIME_ONLY)
        self.stages = StageTrainer(
            fabric=self.fabric, folder=self.run.path, data=config.data, engine=config.engine, seed=config.seed
        )
        self.labelled = open_multitask(config.labelled.source, "train")
        names = short_names(config.teachers)
        self.teachers = {name: load_encoder(spec) for name, spec in zip(names, config.teachers, strict=True)}
        self.start = _started(config.student.start, names)
        known = self.start.path_names if self.start else ()
        self.new_teachers = [name for name in names if name not in known]
        self.stages.watch(config.probes, config.stage1.student_size)
        if self.fabric.is_global_zero:
            self.run.write_config(as_plain(config))

    def new_bodies(self) -> dict[Teaching, MultiTaskEncoder]:
        """The students before stage 1, without heads: one for each way of being taught. Equal stems begin alike."""
        if self.start is not None:
            self._seed("new paths")
            self.start.add_paths(self.new_teachers)
            return {"paths": self.start}
        return {teaching: self._new_body(teaching) for teaching in self.config.teachings}

    def _new_body(self, teaching: Teaching) -> MultiTaskEncoder:
        stem = new_encoder(self.config.student.model, self.config.seed, "student")
        self._seed("paths")
        return make_multitask_encoder(stem, list(self.teachers) if teaching == "paths" else [], {})

    def teach_paths(self, bodies: Mapping[Teaching, MultiTaskEncoder]) -> dict[Teaching, MultiTaskEncoder]:
        """Stage 1 for the students that teachers teach, from wherever it stands; the others come back as they are."""
        taught: dict[Teaching, MultiTaskEncoder] = {way: body for way, body in bodies.items() if way != "none"}
        if not taught:
            return dict(bodies)
        names: dict[str, Teaching] = {"student" if len(taught) == 1 else teaching: teaching for teaching in taught}
        if not self.stages.is_finished(STAGE_1, list(names)):
            config = self.config.stage1
            new = self.new_teachers if self.start else None
            pupils = {
                name: MultiTaskStudent(taught[teaching], teaching, train_only=new) for name, teaching in names.items()
            }
            size = max(max(body.fitting_size(config.student_size)) for body in taught.values())
            loader = self.stages.open_pictures(size, config.batch_size, self.config.data.views)
            teachers = {name: self.teachers[name] for name in new or self.teachers}
            self._train(STAGE_1, pupils, teachers, loader, config, student_size=config.student_size)
        found = self.stages.load(STAGE_1, list(names))
        return {**bodies, **{teaching: _multitask(found[name]) for name, teaching in names.items()}}

    def with_heads(self, bodies: Mapping[Teaching, MultiTaskEncoder]) -> dict[str, MultiTaskStudent]:
        """The students of stage 2: every form, with routers and heads for its tasks. Equal parts begin alike."""
        students = {}
        for form, tasks in self._forms():
            facts = FORMS[form]
            body = copy.deepcopy(bodies[facts.teaching])
            if not body.tasks:
                body.router = facts.router
            self._seed("heads")
            body.add_tasks({name: self.labelled.tasks[name] for name in tasks if name not in body.tasks})
            name = form if form != "single_task" else f"{SINGLE}{tasks[0]}"
            students[name] = MultiTaskStudent(body, facts.teaching, aligners=body.adapters)
        return {"student": next(iter(students.values()))} if len(students) == 1 else students

    def _forms(self) -> list[tuple[Form, list[str]]]:
        """Every form with the tasks of its students."""
        tasks = list(self.labelled.tasks)
        together = [(form, tasks) for form in self.config.student.form if form != "single_task"]
        alone = [("single_task", [task]) for task in tasks if "single_task" in self.config.student.form]
        return [*together, *alone]  # type: ignore[list-item]

    def teach_tasks(self, pupils: Mapping[str, MultiTaskStudent]) -> dict[str, MultiTaskStudent]:
        """Stage 2, from wherever it stands; the finished students."""
        if not self.stages.is_finished(STAGE_2, list(pupils)):
            config = self.config
            loader = MultiTaskLoader(
                self.labelled,
                config.labelled.view,
                config.stage2.batch_size,
                self.fabric.global_rank,
                self.fabric.world_size,
                seed=config.data.seed,
                workers=config.data.workers,
                keep_decoded=config.data.keep_decoded,
            )
            taught = any(pupil.teaching != "none" for pupil in pupils.values())
            teachers = self.teachers if config.alpha and taught else {}
            self._train(STAGE_2, pupils, teachers, loader, config.stage2, alpha=config.alpha)
        found = self.stages.load(STAGE_2, list(pupils))
        return {name: replace(pupil, encoder=_multitask(found[name])) for name, pupil in pupils.items()}

    def _train(
        self,
        stage: str,
        pupils: Mapping[str, MultiTaskStudent],
        teachers: Mapping[str, Encoder],
        loader: BatchLoader[Any],
        optim: OptimConfig,
        **settings: Any,
    ) -> None:
        config = self.config
        self._seed(stage)
        levels = self._levels(pupils, teachers) if teachers else None
        task = PathTraining(
            pupils,
            levels,
            loss=config.path_loss,
            standardizer=config.standardizer,
            statistics_steps=config.statistics_steps,
            **settings,
        )
        if self.fabric.world_size > 1 and self.fabric.device.type == "cuda":  # torch has none for processors
            nn.SyncBatchNorm.convert_sync_batchnorm(task)
        facts = {"stage": stage, "steps": optim.steps}
        self.stages.train(
            stage,
            task,
            loader,
            optim,
            signature={
                "students": {name: self._signature(pupil) for name, pupil in pupils.items()},
                "teachers": {name: teacher.name for name, teacher in teachers.items()},
                "inputs": config.inputs,
                "loss": config.path_loss,
                "standardizer": config.standardizer,
                **settings,
            },
            details={
                name: {**facts, "teachers": lineage(_heard(pupil, self.teachers), pupil.encoder)}
                for name, pupil in pupils.items()
            },
            adapters=lambda: {name: whole(task.adapters(name)) for name in pupils},
        )

    def _levels(self, pupils: Mapping[str, MultiTaskStudent], teachers: Mapping[str, Encoder]) -> LevelTeachers:
        depths = depths_of(next(iter(pupils.values())).encoder.levels)  # the same in all: they share one model
        return LevelTeachers(teachers, depths=depths, inputs=self.config.inputs, max_grid=self.config.max_grid)

    def finish(self, pupils: Mapping[str, MultiTaskStudent], measure: Measure | None) -> Path:
        """Measures, writes students, cards and report.

        Args:
            pupils: the finished students by name.
            measure: called with the students by name in place of the measurement on the validation pictures.

        Returns:
            Folder of the student; with several, the folder that holds a folder for each.
        """
        students = {name: pupil.encoder.eval() for name, pupil in pupils.items()}
        if self.fabric.is_global_zero:
            if not self.run.results.exists():
                table = (measure or self._measure)(dict(students))
                atomic_write_text(self.run.results, table.to_json())
            story = self._story(students)
            for name, student in students.items():
                # Its own teachers only: what was learnt from labels alone owes nothing to the committee.
                write_student(self.run, name, student, replace(story, teachers=student.lineage))
            write_run_report(self.run, story)
        self.fabric.barrier()
        return self.run.student if len(students) == 1 else self.run.students

    def _measure(self, students: dict[str, Encoder]) -> ResultTable:
        table = evaluate(students, ["multitask"], {"multitask": self.config.labelled.source})
        return with_delta_m(table, [name for name in students if name.startswith(SINGLE)])

    def _story(self, students: Mapping[str, MultiTaskEncoder]) -> RunStory:
        config = self.config
        about = f"{model_name(config.student.model)}, by SAK"
        tasks = ", ".join(self.labelled.tasks)
        source = f"from {', '.join(self.teachers)} and labels" if self.teachers else "from labels alone"
        side = config.stage1.student_size
        shown = open_multitask(config.labelled.source, "val")
        return RunStory(
            titles={name: about if name == "student" else f"{about} ({name})" for name in students},
            summary=f"{'One model' if len(students) == 1 else f'{len(students)} models'} for {tasks}, learnt {source}.",
            teachers=list({one["name"]: one for student in students.values() for one in student.lineage}.values()),
            data=[*config.data.sources, config.labelled.source],
            config=as_plain(config),
            encoders={**self.teachers, **students},
            pictures=self.stages.sample_pictures(6, side),
            size=side,
            results=ResultTable.from_json(self.run.results.read_text()),
            failures=self.stages.failures,
            exhibits=[Answers(shown), Routing(shown)],
        )

    def _signature(self, pupil: MultiTaskStudent) -> list[Any]:
        begin = self.stages.place_of(pupil.encoder)
        return [begin, pupil.teaching, list(pupil.encoder.tasks), list(pupil.train_only or ())]

    def _seed(self, what: str) -> None:
        seed_everything(self.config.seed, "sak", what)


def _started(spec: str | None, teachers: Iterable[str]) -> MultiTaskEncoder | None:
    """The finished model that a run continues.

    Raises:
        ValueError: it is none of this recipe, or one of its teachers is missing.
    """
    if spec is None:
        return None
    model = _multitask(load_encoder(spec))
    missing = [name for name in model.path_names if name not in set(teachers)]
    if missing:
        raise ValueError(
            f"{spec} has a path for {', '.join(missing)}: name that teacher too, so that its path does not forget"
        )
    return model


def _multitask(encoder: Encoder) -> MultiTaskEncoder:
    if not isinstance(encoder, MultiTaskEncoder):
        raise ValueError(f"{encoder.name} is no model of the recipe sak: it has no tasks and paths")
    return encoder


def _heard(pupil: MultiTaskStudent, teachers: Mapping[str, Encoder]) -> list[Encoder]:
    """The teachers that a student learns from."""
    return [] if pupil.teaching == "none" else list(teachers.values())
