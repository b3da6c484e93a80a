"""The run of a classifier recipe: what all of them share, from the configuration to the student's folder and report.

A recipe says in between which students there are and how each is taught; see `eyespot.recipes.vanilla_kd`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import field, replace
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from eyespot.config import STRICT
from eyespot.data import DataConfig, plain_list_of_sources
from eyespot.data.labelled.labels import Classes, classes_of
from eyespot.data.sources.opening import open_source
from eyespot.distill.classes.classifier_distillation import ClassifierDistillation, ClassifierStudent
from eyespot.distill.classes.config import LabelConfig, MethodSettings, MixConfig
from eyespot.distill.classes.methods import method_class
from eyespot.distill.warm_start import new_encoder
from eyespot.encoders import Encoder, load_classifier, load_encoder
from eyespot.encoders.lineage import lineage
from eyespot.encoders.naming import has_random_weights, model_name, short_names, to_train
from eyespot.encoders.permissive import require_permissive
from eyespot.engine.config import EngineConfig, OptimConfig
from eyespot.engine.run import RunFolder, as_plain
from eyespot.engine.strategy import start_fabric
from eyespot.evaluate import ResultTable, evaluate
from eyespot.evaluate.config import ProbesConfig
from eyespot.evaluate.protocols.classification import class_places
from eyespot.files import atomic_write_text
from eyespot.randomness import seed_everything
from eyespot.report.pages.run import RunStory, write_run_report, write_student
from eyespot.runs.settings import RUNTIME_ONLY
from eyespot.runs.stage_training import StageTrainer

STAGE = "stage-1-distillation"

Measure = Callable[[dict[str, Encoder]], ResultTable]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ClassifierStudents:
    """The compact classifiers that a recipe makes: every model by every method, all from one pass of the teacher."""

    model: list[str]
    """Specs. timm models start from random weights unless the spec says ?pretrained=true."""
    method: list[str] = field(default_factory=lambda: ["kd"])
    """How the teacher tells: kd, bkd, dkd, dist, ofa, fitnet, cc, rkd, crd; none learns from labels alone."""

    @field_validator("model", "method", mode="before")
    @classmethod
    def _one_as_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value or []


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ClassifierConfig:
    """Everything there is to decide about the run of a classifier recipe."""

    teacher: str | None
    """Spec of the classifier that teaches, e.g. timm/resnet152.a1h_in1k or onnx/expert.onnx; null to learn from labels
    alone."""
    data: DataConfig
    """Pictures: folders with a folder per class, WebDataset shards with .cls, Hugging Face datasets. Without labels,
    set label.weight to 0."""
    test: str | None = None
    """Labelled pictures on which teacher and students are measured when all is done, as for `eyespot evaluate --data
    classification=...`: a folder with train/ and val/, or NAME:FOLDER."""
    student: ClassifierStudents
    """The students."""
    num_classes: int | None = Field(default=None, gt=0)
    """Outputs of the students, if no teacher's logits say so. None: as many as the pictures have classes."""
    label: LabelConfig = field(default_factory=LabelConfig)
    """What the labels say."""
    method: MethodSettings = field(default_factory=MethodSettings)
    """How the methods tell."""
    mix: MixConfig = field(default_factory=MixConfig)
    """Mixup, cutmix and label smoothing; teacher and students see the same mixed pictures."""
    training: OptimConfig
    """Length, batches, optimiser, schedule."""
    student_size: int | None = Field(default=None, gt=0)
    """Side in pixels at which students look, rounded to their stride; None: each one's default."""
    teacher_size: int | None = Field(default=None, gt=0)
    """The same for the teacher."""
    permissive_only: bool = False
    """Refuse teachers and released starting weights whose licence does not plainly allow commercial use."""
    steps: int | None = Field(default=None, gt=0)
    """Overrides training.steps and shortens warm-up and decays in proportion."""
    seed: int = 0
    """Names every random draw of the run; the pictures' order and views follow data.seed."""
    engine: EngineConfig = field(default_factory=EngineConfig)
    """Precision, devices, logging, checkpoints."""
    probes: ProbesConfig = field(default_factory=ProbesConfig)
    """What is measured of the students while they are trained."""

    _sources_alone = field_validator("data", mode="before")(plain_list_of_sources)

    def checked(self) -> Self:
        """The configuration itself, if it makes a whole run, with `steps` written into the training.

        Raises:
            ValueError: it does not; says what is missing.
        """
        if not self.student.model or not self.student.method:
            raise ValueError("student.model and student.method name at least one each")
        for name in self.student.method:
            method_class(name)
        if self.teacher is None and self.student.method != ["none"]:
            raise ValueError("there is no teacher: name one, or set student.method to none to learn from labels alone")
        if self.label.weight == 0 and "none" in self.student.method:
            raise ValueError("student.method none learns from labels, but label.weight is 0")
        if self.training.steps == 0:
            raise ValueError("training.steps is 0: nothing would be trained")
        if self.steps is None:
            return self
        return replace(self, steps=None, training=self.training.with_steps(self.steps))

    @property
    def students(self) -> dict[str, tuple[str, str]]:
        """(spec, method) of each student by name; a single one is called "student"."""
        pairs = [(to_train(model), method) for model in self.student.model for method in self.student.method]
        if len(pairs) == 1:
            return {"student": pairs[0]}
        models = dict(zip(self.student.model, short_names(self.student.model), strict=True))
        named = [
            "-".join(
                word
                for word, several in ((models[model], self.student.model), (method, self.student.method))
                if len(several) > 1
            )
            for model in self.student.model
            for method in self.student.method
        ]
        return dict(zip(named, pairs, strict=True))

    @property
    def learnt_from(self) -> list[str]:
        """Specs of all models whose weights reach the students: the teacher, and released starting weights."""
        starts = [spec for spec, _ in self.students.values() if not has_random_weights(spec)]
        return [*([self.teacher] if self.teacher else []), *dict.fromkeys(starts)]


@plain_dataclass(frozen=True)
class Outputs:
    """What the outputs of the students are.

    Attributes:
        count: how many.
        names: of the classes in order, where known.
        places: int64, for each class of the pictures the output that means it; None where labels are not used.
    """

    count: int
    names: Sequence[str] | None
    places: Tensor | None


class ClassifierRun:
    """One run of a classifier recipe: opens it, trains, and writes what came out.

    Args:
        config: of the recipe.
        output: the run folder.

    Attributes:
        config: checked.
        teacher: the frozen teacher, None without.
        outputs: what the students' outputs are.

    Raises:
        RunMismatchError: the folder holds a run of another configuration.
        ValueError: the configuration makes no whole run, names models that `permissive_only` refuses, or its pictures
            lack the labels that it wants.
    """

    def __init__(self, config: ClassifierConfig, output: str | Path) -> None:
        self.config = config = config.checked()
        if config.permissive_only:
            require_permissive(config.learnt_from)
        self.fabric = start_fabric(config.engine)
        self.run = RunFolder(output, as_plain(config), free=RUNTIME_ONLY)
        self.stages = StageTrainer(
            fabric=self.fabric, folder=self.run.path, data=config.data, engine=config.engine, seed=config.seed
        )
        self.teacher = load_teacher(config)
        self.outputs = outputs_of(config, self.teacher)
        self.stages.watch(config.probes, config.student_size or 224)
        if self.fabric.is_global_zero:
            self.run.write_config(as_plain(config))

    def new_students(self) -> dict[str, ClassifierStudent]:
        """The students of the configuration as they begin, each with its method. Equal models begin alike."""

        def load(spec: str) -> Encoder:
            return load_classifier(spec, self.outputs.count, self.outputs.names)

        return {
            name: ClassifierStudent(new_encoder(spec, self.config.seed, "student", load), method, self.config.method)
            for name, (spec, method) in self.config.students.items()
        }

    def train(self, pupils: Mapping[str, ClassifierStudent]) -> dict[str, Encoder]:
        """Trains the students, unless that is done; the finished ones (moving averages if there are some) by name."""
        if not self.stages.is_finished(STAGE, list(pupils)):
            self._train(pupils)
        return self.stages.load(STAGE, list(pupils))

    def _train(self, pupils: Mapping[str, ClassifierStudent]) -> None:
        config, teachers = self.config, [self.teacher] if self.teacher else []
        looks = [(pupil.encoder, config.student_size) for pupil in pupils.values()]
        looks += [(teacher, config.teacher_size) for teacher in teachers]
        size = max(side for encoder, wanted in looks for side in encoder.fitting_size(wanted))
        loader = self.stages.open_pictures(size, config.training.batch_size, config.data.views)
        seed_everything(config.seed, STAGE, "heads")
        task = ClassifierDistillation(
            pupils,
            self.teacher,
            label=config.label,
            mix=config.mix,
            sources=[len(source) for source in loader.sources],
            places=self.outputs.places,
            student_size=config.student_size,
            teacher_size=config.teacher_size,
            seed=config.seed,
        )
        facts = {"stage": STAGE, "steps": config.training.steps}
        self.stages.train(
            STAGE,
            task,
            loader,
            config.training,
            signature={
                "students": {name: (pupil.encoder.name, pupil.method) for name, pupil in pupils.items()},
                "teacher": self.teacher.name if self.teacher else None,
                "method": as_plain(config.method),
                "label": as_plain(config.label),
                "mix": as_plain(config.mix),
            },
            details={name: {**facts, "teachers": lineage(teachers, one.encoder)} for name, one in pupils.items()},
        )

    def finish(self, students: Mapping[str, Encoder], by: str, measure: Measure | None = None) -> Path:
        """Measures, writes students, cards and report.

        Args:
            students: the finished ones by name.
            by: the method's name for people, e.g. "VanillaKD".
            measure: called with teacher and students by name in place of the measurement on `config.test`.

        Returns:
            Folder of the student; with several, the folder that holds a folder for each.
        """
        if self.fabric.is_global_zero:
            story = self._story(students, by, measure or self._measure)
            for name, student in students.items():
                write_student(self.run, name, student, story)
            write_run_report(self.run, story)
        self.fabric.barrier()
        return self.run.student if len(students) == 1 else self.run.students

    def _measure(self, encoders: dict[str, Encoder]) -> ResultTable | None:
        if self.config.test is None:
            return None
        sizes = {name: self.config.student_size for name in encoders} | {"teacher": self.config.teacher_size}
        tables = [
            evaluate({name: encoder}, ["classification"], {"classification": self.config.test}, sizes[name])
            for name, encoder in encoders.items()
            if encoder.num_classes
        ]
        rows = {name: row for table in tables for name, row in table.rows.items()}
        return replace(tables[0], rows=rows)

    def _story(
        self, students: Mapping[str, Encoder], by: str, measure: Callable[[dict[str, Encoder]], ResultTable | None]
    ) -> RunStory:
        config = self.config
        encoders = ({"teacher": self.teacher.eval()} if self.teacher else {}) | dict(students)
        if not self.run.results.exists() and (table := measure(encoders)) is not None:
            atomic_write_text(self.run.results, table.to_json())
        several = len(config.student.method) > 1
        titles = {
            name: f"{model_name(spec)}, by {by}{f' ({method})' if several else ''}"
            for name, (spec, method) in config.students.items()
        }
        side = max(next(iter(students.values())).fitting_size(config.student_size))
        made = "One classifier" if len(students) == 1 else f"{len(students)} classifiers"
        source = f"from {short_names([self.teacher.name])[0]}" if self.teacher else "from labels alone"
        labels = "" if self.teacher is None else " and from labels" if config.label.weight else ", without labels"
        return RunStory(
            titles=titles,
            summary=f"{made} of {self.outputs.count} classes, learnt {source}{labels}.",
            teachers=list({one["name"]: one for student in students.values() for one in student.lineage}.values()),
            data=config.data.sources,
            config=as_plain(config),
            encoders=encoders,
            pictures=self.stages.sample_pictures(6, side),
            size=side,
            results=ResultTable.from_json(self.run.results.read_text()) if self.run.results.exists() else None,
            failures=self.stages.failures,
        )


def load_teacher(config: ClassifierConfig) -> Encoder | None:
    """The teacher: with its class head if any method listens to logits.

    Raises:
        ValueError: the teacher has no class head; says how to give it one.
    """
    if config.teacher is None:
        return None
    listens = any(method_class(name).teacher_logits for name in config.student.method)
    return (load_classifier if listens else load_encoder)(config.teacher)


def outputs_of(config: ClassifierConfig, teacher: Encoder | None) -> Outputs:
    """How many outputs the students have, what they are called, and which of them each class of the pictures is.

    Raises:
        ValueError: labels are wanted but missing, or do not belong to the teacher's classes.
    """
    labels = classes_of([open_source(spec) for spec in config.data.sources]) if config.label.weight else None
    if teacher is not None and any(method_class(name).teacher_logits for name in config.student.method):
        return Outputs(teacher.num_classes, teacher.class_names, _places(teacher, labels) if labels else None)
    count = config.num_classes or (labels.count if labels else 0)
    if not count:
        raise ValueError("how many classes? The pictures have no labels that count: set num_classes")
    if labels is None:
        return Outputs(count, None, None)
    if count < labels.count:
        raise ValueError(f"num_classes is {count}, but the pictures have {labels.count} classes")
    return Outputs(count, labels.names if count == labels.count else None, torch.arange(labels.count))


def _places(teacher: Encoder, labels: Classes) -> Tensor:
    """Where among the teacher's outputs each class of the pictures is: by name, or by number where there are none."""
    if labels.names is not None:
        return class_places(teacher, labels.names)
    if labels.count > teacher.num_classes:
        raise ValueError(
            f"the pictures have {labels.count} classes, {teacher.name} tells {teacher.num_classes} apart: take a "
            "teacher of these classes, or set label.weight to 0"
        )
    return torch.arange(labels.count)
