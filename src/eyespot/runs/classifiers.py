"""What the recipes for classifiers share: teacher, what the outputs are, and how results are told.

A recipe says in between which students there are and what they minimise; see `eyespot.recipes.vanilla_kd`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eyespot.config import as_plain
from eyespot.data import PictureLoader
from eyespot.data.labelled.labels import Classes, classes_of
from eyespot.data.sources.opening import open_source
from eyespot.distill.classes.classifier_distillation import ClassifierDistillation, ClassifierStudent
from eyespot.distill.classes.methods import method_class
from eyespot.distill.classes.mixing import mixes
from eyespot.distill.warm_start import new_encoder
from eyespot.encoders import Encoder, load_classifier, load_encoder
from eyespot.encoders.frozen import load_teacher_model
from eyespot.encoders.lineage import lineage
from eyespot.encoders.naming import model_name, short_names
from eyespot.evaluate import ResultTable, evaluate
from eyespot.evaluate.protocols.classification import ClassHead, check, class_places
from eyespot.evaluate.run_tasks import open_all
from eyespot.evaluate.tasks import TASKS
from eyespot.randomness import seed_everything
from eyespot.runs.classifier_config import ClassifierConfig
from eyespot.runs.run import Measure, Run

STAGE = "stage-1-distillation"

MakeTask = Callable[[Mapping[str, ClassifierStudent], PictureLoader], ClassifierDistillation]


@dataclass(frozen=True)
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

    @property
    def head(self) -> ClassHead:
        """What can be known of the students' heads before there are students."""
        return FutureHead("the student", self.count, self.names)


@dataclass(frozen=True)
class FutureHead:
    """A class head that is not made yet; see `ClassHead`."""

    name: str
    num_classes: int
    class_names: Sequence[str] | None


class ClassifierRun(Run[ClassifierConfig]):
    """One run of a recipe for classifiers; see `Run`.

    Attributes:
        teacher: the frozen teacher, None without.
        outputs: what the students' outputs are.

    Raises:
        ValueError: the pictures lack the labels that the configuration wants, or those to be measured on have other
            classes; see also `Run`.
    """

    def __init__(self, config: ClassifierConfig, output: str | Path) -> None:
        super().__init__(config, output)
        self.teacher = load_teacher(self.config)
        self.outputs = outputs_of(self.config, self.teacher)
        if self.config.test is not None:
            refuse_other_classes(self.config.test, self.outputs, self.teacher)
        self.begin(probe_size=self.config.student_size or 224)

    def new_students(self) -> dict[str, ClassifierStudent]:
        """The students of the configuration as they begin, each with its method. Equal models begin alike."""

        def load(spec: str) -> Encoder:
            return load_classifier(spec, self.outputs.count, self.outputs.names)

        return {
            name: ClassifierStudent(new_encoder(spec, self.config.seed, "student", load), method, self.config.method)
            for name, (spec, method) in self.config.students.items()
        }

    def teach(self, students: Mapping[str, ClassifierStudent], make_task: MakeTask) -> dict[str, Encoder]:
        """Trains the one stage of a classifier recipe, unless that is done.

        Args:
            students: what is trained, by name.
            make_task: (students, pictures) -> what they minimise.

        Returns:
            The finished students (moving averages if there are some) by name.
        """
        if not self.is_finished(STAGE, list(students)):
            pictures = self._open_labelled(students)
            self._train(make_task(students, pictures), students, pictures)
        return self.load(STAGE, list(students))

    def _open_labelled(self, students: Mapping[str, ClassifierStudent]) -> PictureLoader:
        """The pictures as large as anybody looks at them; then the draws of the Task begin."""
        config = self.config
        wanted = [(student.encoder, config.student_size) for student in students.values()]
        wanted += [(self.teacher, config.teacher_size)] if self.teacher else []
        size = max(side for encoder, side_wanted in wanted for side in encoder.fitting_size(side_wanted))
        pictures = self.open_pictures(size, config.training.batch_size, config.data.views, in_pairs=mixes(config.mix))
        seed_everything(config.seed, STAGE, "heads")
        return pictures

    def task_settings(self, pictures: PictureLoader) -> dict[str, Any]:
        """What every `ClassifierDistillation` of this run is given beside the terms of its loss."""
        return {
            "sources": [len(source) for source in pictures.sources],
            "places": self.outputs.places,
            "student_size": self.config.student_size,
            "teacher_size": self.config.teacher_size,
            "seed": self.config.seed,
        }

    def _train(
        self, task: ClassifierDistillation, students: Mapping[str, ClassifierStudent], pictures: PictureLoader
    ) -> None:
        config, teachers = self.config, [self.teacher] if self.teacher else []
        self.train(
            STAGE,
            task,
            pictures,
            config.training,
            signature={
                "students": {name: (student.encoder.name, student.method) for name, student in students.items()},
                "teacher": self.teacher.name if self.teacher else None,
                "method": as_plain(config.method),
                "label": as_plain(config.label),
                "mix": as_plain(config.mix),
            },
            teachers={name: lineage(teachers, student.encoder) for name, student in students.items()},
        )

    def tell(self, students: Mapping[str, Encoder], by: str, measure: Measure | None = None) -> Path:
        """Measures, writes students, cards and report; see `Run.finish`.

        Args:
            students: the finished ones by name.
            by: the method's name for people, e.g. "VanillaKD".
            measure: called with teacher and students by name in place of the measurement on `config.test`.

        Returns:
            Folder of the student; with several, the folder that holds a folder for each.
        """
        config, several = self.config, len(self.config.student.method) > 1
        made = "One classifier" if len(students) == 1 else f"{len(students)} classifiers"
        source = f"from {short_names([self.teacher.name])[0]}" if self.teacher else "from labels alone"
        labels = "" if self.teacher is None else " and from labels" if config.label.weight else ", without labels"
        return self.finish(
            students,
            titles={
                name: f"{model_name(spec)}, by {by}{f' ({method})' if several else ''}"
                for name, (spec, method) in config.students.items()
            },
            summary=f"{made} of {self.outputs.count} classes, learnt {source}{labels}.",
            size=max(next(iter(students.values())).fitting_size(config.student_size)),
            others={"teacher": self.teacher.eval()} if self.teacher else {},
            measure=measure or self._measure,
        )

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


def load_teacher(config: ClassifierConfig) -> Encoder | None:
    """The teacher: with its class head if any method listens to logits.

    Raises:
        ValueError: the teacher has no class head, or one that its weights do not bring; says how to give it one.
    """
    if config.teacher is None:
        return None
    listens = any(method_class(name).teacher_logits for name in config.student.method)
    return load_teacher_model(config.teacher, load_classifier if listens else load_encoder)


def refuse_other_classes(test: str, outputs: Outputs, teacher: Encoder | None) -> None:
    """Opens the pictures that are measured on when all is done, and compares their classes, before anything is trained.

    Raises:
        FileNotFoundError: they are not laid out as expected.
        ValueError: the students or the teacher could not be measured on them; says why.
    """
    task = TASKS["classification"]
    data = open_all({"classification": task}, {"classification": test}, limit=None, seed=0)["classification"]
    heads = [outputs.head, *([teacher] if teacher is not None and teacher.num_classes else [])]
    for head in heads:
        try:
            check(head, data)
        except ValueError as error:
            raise ValueError(f"test {test}: {error}. Name another test, or unset it") from error


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
