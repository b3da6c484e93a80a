"""What the recipes for classifiers share of their configuration."""

from __future__ import annotations

from dataclasses import field, replace
from typing import Self

from pydantic import Field
from pydantic.dataclasses import dataclass

from eyespot.config import STRICT, OneOrMore
from eyespot.data import DataConfig
from eyespot.distill.classes.config import LabelConfig, MethodSettings, MixConfig
from eyespot.encoders.naming import has_random_weights, short_names, trainable_spec
from eyespot.engine.config import OptimConfig
from eyespot.runs.config import RunConfig


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ClassifierStudents:
    """The compact classifiers that a recipe makes: every model by every method, all from one pass of the teacher."""

    model: OneOrMore[str]
    """Specs. timm models start from random weights unless the spec says ?pretrained=true."""
    method: OneOrMore[str]
    """How the teacher tells: kd, bkd, dkd, dist, ofa, fitnet, cc, rkd, crd; none learns from labels alone."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ClassifierConfig(RunConfig):
    """What all recipes for classifiers share; each has the defaults of its method."""

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

    def checked(self) -> Self:
        """The configuration itself, if it makes a whole run, with `steps` written into the training.

        Raises:
            ValueError: it does not; says what is missing.
        """
        from eyespot.distill.classes.methods import method_class  # here, since a help text needs no torch

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
        pairs = [(trainable_spec(model), method) for model in self.student.model for method in self.student.method]
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
