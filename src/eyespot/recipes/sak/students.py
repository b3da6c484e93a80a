"""SAK's students, and what they are compared with, as they begin each stage."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

from eyespot.dense_tasks import DenseTask
from eyespot.distill.warm_start import new_encoder
from eyespot.encoders import Encoder, load_encoder
from eyespot.encoders.multitask import MultiTaskEncoder, make_multitask_encoder
from eyespot.randomness import seed_everything
from eyespot.recipes.sak.config import FORMS, SINGLE, Form, SakConfig
from eyespot.recipes.sak.path_training import MultiTaskStudent, Teaching


class StudentBuilder:
    """Makes the students of a run.

    Args:
        config: of the run, checked.
        teachers: their names, which are those of the paths.

    Attributes:
        start: the finished model that is continued, if any.
        new_paths: names of the teachers that have no path yet.

    Raises:
        ValueError: the model to continue is none of this recipe, or one of its teachers is missing.
    """

    def __init__(self, config: SakConfig, teachers: Iterable[str]) -> None:
        self.config, self.teachers = config, list(teachers)
        self.start = _started(config.student.start, self.teachers)
        known = self.start.path_names if self.start else ()
        self.new_paths = [name for name in self.teachers if name not in known]

    def bodies(self) -> dict[Teaching, MultiTaskEncoder]:
        """The students before stage 1, without heads: one for each way of being taught. Equal stems begin alike."""
        if self.start is not None:
            self._seed("new paths")
            self.start.add_paths(self.new_paths)
            return {"paths": self.start}
        return {teaching: self._new_body(teaching) for teaching in self.config.teachings}

    def _new_body(self, teaching: Teaching) -> MultiTaskEncoder:
        stem = new_encoder(self.config.student.model, self.config.seed, "student")
        self._seed("paths")
        return make_multitask_encoder(stem, self.teachers if teaching == "paths" else [], {})

    def taught(self, bodies: Mapping[Teaching, MultiTaskEncoder]) -> dict[str, MultiTaskStudent]:
        """The students of stage 1: those bodies that teachers teach."""
        train_only = self.new_paths if self.start else None
        students: dict[str, MultiTaskStudent] = {
            teaching: MultiTaskStudent(body, teaching, train_only=train_only)
            for teaching, body in bodies.items()
            if teaching != "none"
        }
        return _alone_as_student(students)

    def with_heads(
        self, bodies: Mapping[Teaching, MultiTaskEncoder], tasks: Mapping[str, DenseTask]
    ) -> dict[str, MultiTaskStudent]:
        """The students of stage 2: every form, with routers and heads for its tasks. Equal parts begin alike."""
        students: dict[str, MultiTaskStudent] = {}
        for form, own in self._forms(list(tasks)):
            facts = FORMS[form]
            body = copy.deepcopy(bodies[facts.teaching])
            if not body.tasks:
                body.router = facts.router
            self._seed("heads")
            body.add_tasks({name: tasks[name] for name in own if name not in body.tasks})
            name = form if form != "single_task" else f"{SINGLE}{own[0]}"
            students[name] = MultiTaskStudent(body, facts.teaching, aligners=body.adapters)
        return _alone_as_student(students)

    def _forms(self, tasks: list[str]) -> list[tuple[Form, list[str]]]:
        """Every form with the tasks of its students."""
        forms = self.config.student.form
        together = [(form, tasks) for form in forms if form != "single_task"]
        alone: list[tuple[Form, list[str]]] = [("single_task", [task]) for task in tasks if "single_task" in forms]
        return [*together, *alone]

    def _seed(self, what: str) -> None:
        seed_everything(self.config.seed, "sak", what)


def _alone_as_student(students: Mapping[str, MultiTaskStudent]) -> dict[str, MultiTaskStudent]:
    """A single student is called "student"."""
    return {"student": next(iter(students.values()))} if len(students) == 1 else dict(students)


def _started(spec: str | None, teachers: Iterable[str]) -> MultiTaskEncoder | None:
    if spec is None:
        return None
    model = multitask(load_encoder(spec))
    missing = [name for name in model.path_names if name not in set(teachers)]
    if missing:
        raise ValueError(
            f"{spec} has a path for {', '.join(missing)}: name that teacher too, so that its path does not forget"
        )
    return model


def multitask(encoder: Encoder) -> MultiTaskEncoder:
    """The encoder itself, known to be a multi-task model.

    Raises:
        ValueError: it is another.
    """
    if not isinstance(encoder, MultiTaskEncoder):
        raise ValueError(f"{encoder.name} is no model of the recipe sak: it has no tasks and paths")
    return encoder
