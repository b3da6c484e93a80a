"""Classifier distillation: a student learns to classify, from labels, from a frozen classifier, or from both.

VanillaKD, OFA-KD and GhostNetV3's training are this one Task; only the method, the label loss and the mixing differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from eyespot.data.loading.batch import PictureBatch
from eyespot.distill.classes.config import LabelConfig, MethodSettings, MixConfig
from eyespot.distill.classes.logit_losses import binary_cross_entropy, cross_entropy
from eyespot.distill.classes.methods import make_method, method_class
from eyespot.distill.classes.mixing import is_labelled, mix, mixes, partners_of
from eyespot.distill.classes.outputs import ClassifierOutput, Method, output_shape
from eyespot.distill.committee import Committee
from eyespot.distill.features.feature_distillation import token_count
from eyespot.distill.side_by_side import Learner, SideBySide
from eyespot.encoders import Encoder
from eyespot.encoders.taps import Taps
from eyespot.pictures import as_unit_floats, resize_pictures

LABEL_LOSSES = {"ce": cross_entropy, "bce": binary_cross_entropy}

CERTAINLY_NOT = -30.0
"""A logit whose sigmoid cross-entropy with "no" is 0 in float32."""


@dataclass(frozen=True)
class ClassifierStudent:
    """A student and how it is taught.

    Attributes:
        encoder: with a class head; see `load_classifier`.
        method: a name from `eyespot.distill.classes.methods.METHODS`.
        settings: hyper-parameters of the method.
    """

    encoder: Encoder
    method: str = "kd"
    settings: MethodSettings = field(default_factory=MethodSettings)


@dataclass(frozen=True)
class StudentTargets:
    """What all students are told about one batch.

    Attributes:
        images: [B, 3, S, S] in [0, 1], already mixed.
        labels: what the label loss compares with, float32 [B, K]; None: nothing.
        target: int64 [B], the hard class, see `Method.forward`.
        teacher: what the teacher says of these images; None without a teacher.
        picture: int64 [B], number of each picture over all sources.
    """

    images: Tensor
    labels: Tensor | None
    target: Tensor
    teacher: ClassifierOutput | None
    picture: Tensor


class ClassifierLearner(Learner):
    """A student with its method.

    Args:
        encoder: the student.
        method: what the teacher tells it; with parameters of its own (exits, projections) that only training needs.
        label: what the labels tell it.
        size: side in pixels at which it looks; None is its default.
    """

    def __init__(self, encoder: Encoder, method: Method, label: LabelConfig, size: int | None) -> None:
        super().__init__(encoder)
        self.method, self.label, self.size = method, label, size
        self.taps = Taps(encoder) if method.student_taps else None

    def forward(self, targets: StudentTargets) -> dict[str, Tensor]:
        """The term `label`, and those of the method."""
        pictures = resize_pictures(targets.images, self.encoder.fitting_size(self.size))
        output = classifier_output(self.encoder, self.taps, pictures)
        terms: dict[str, Tensor] = {}
        if targets.labels is not None:
            # A picture without a label costs nothing, whatever the student says.
            logits = output.logits.float().masked_fill(~is_labelled(targets.labels)[:, None], CERTAINLY_NOT)
            terms["label"] = self.label.weight * LABEL_LOSSES[self.label.loss](logits, targets.labels)
        if targets.teacher is not None:
            terms |= self.method(output, targets.teacher, targets.target, targets.picture)
        return terms


class ClassifierDistillation(SideBySide):
    """Students -> label loss and method, against one pass of the teacher over the same augmented, mixed pictures.

    Several students, or several methods for one architecture, learn from the same pass of the teacher (VanillaKD's code
    does so too); each becomes what it would have become alone.

    Args:
        students: students by name.
        teacher: a frozen encoder with a class head (without one for methods on features); None: labels alone.
        label: the label term.
        mix: mixup and cutmix, seen by teacher and students alike.
        sources: number of pictures of each source.
        places: int64, for each class of the pictures the output that means it; None: the same number.
        student_size: side in pixels at which students look; None: each one's default.
        teacher_size: the same for the teacher.
        seed: names the draws of the mixing, together with the step; the same on every rank.

    Raises:
        ValueError: no students, nothing to learn from, or a method that cannot bring a student and the teacher
            together.
    """

    on_device = (*SideBySide.on_device, "partner", "guests")
    places: Tensor

    def __init__(
        self,
        students: Mapping[str, ClassifierStudent],
        teacher: Encoder | None,
        *,
        label: LabelConfig,
        mix: MixConfig,
        sources: Sequence[int],
        places: Tensor | None = None,
        student_size: int | None = None,
        teacher_size: int | None = None,
        seed: int = 0,
    ) -> None:
        if teacher is None and label.weight == 0:
            raise ValueError("nothing to learn from: there is no teacher, and the labels' weight is 0")
        wants = {name: method_class(student.method) for name, student in students.items()}
        teacher_taps = Taps(teacher) if teacher and any(method.teacher_taps for method in wants.values()) else None
        shown = output_shape(teacher, teacher_taps, teacher_size) if teacher else None

        def learner(name: str, encoder: Encoder) -> ClassifierLearner:
            own = output_shape(encoder, Taps(encoder) if wants[name].student_taps else None, student_size)
            if not own.num_classes:
                raise ValueError(f"student {name!r} ({encoder.name}) has no class head: see load_classifier")
            student = students[name]
            method = make_method(student.method if shown else "none", student.settings, own, shown or own, sum(sources))
            return ClassifierLearner(encoder, method, label, student_size)

        super().__init__({name: student.encoder for name, student in students.items()}, learner)
        self.committee = Committee({"teacher": teacher}) if teacher else None
        self.teacher_taps = teacher_taps
        self.label, self.mixing, self.seed = label, mix, seed
        self.student_size, self.teacher_size = student_size, teacher_size
        self.register_buffer("places", torch.arange(self.num_classes) if places is None else places, persistent=False)
        self.first_pictures = torch.tensor([0, *accumulate(sources)][:-1])

    def before_split(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Adds `partners`: what each picture is mixed with, if any is."""
        return {**batch, "partners": partners_of(batch)} if mixes(self.mixing) else batch

    def forward(self, batch: PictureBatch) -> dict[str, Tensor]:
        """The terms `label` and those of the method, and their sum `loss`; see `SideBySide.teach`."""
        images, labels = self._pictures(batch)
        partners = self._pictures(batch["partners"]) if "partners" in batch else None
        draw = (self.seed, batch["step"])
        images, soft_labels = mix(images, labels, self.num_classes, self.mixing, *draw, partners=partners)
        teacher = self.teacher_output(images)
        targets = StudentTargets(
            images=images,
            labels=soft_labels,
            target=hard_classes(soft_labels, teacher),
            teacher=teacher,
            picture=self.picture_numbers(batch).to(images.device, non_blocking=True),
        )
        return self.teach(images.device, targets)

    def _pictures(self, entries: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Images in [0, 1], and their labels as numbers of outputs, None if these do not count."""
        labels = self._as_outputs(entries["labels"]) if self.label.weight else None
        return as_unit_floats(entries["images"]), labels

    def _as_outputs(self, labels: Tensor) -> Tensor:
        """Labels of the pictures as numbers of outputs; -1 stays."""
        return torch.where(labels < 0, labels, self.places[labels])

    @torch.no_grad()
    def teacher_output(self, images: Tensor) -> ClassifierOutput | None:
        """What the teacher says of pictures in [0, 1], in float32."""
        teacher = self.teacher
        if teacher is None:
            return None
        pictures = resize_pictures(images, teacher.fitting_size(self.teacher_size))
        output = classifier_output(teacher, self.teacher_taps, pictures)
        taps = tuple(tap.float() for tap in output.taps)
        return ClassifierOutput(output.logits.float(), output.summary.float(), taps)

    def picture_numbers(self, batch: PictureBatch) -> Tensor:
        """Number of each picture of a batch over all sources, int64 [B], on the host."""
        numbers: Tensor = self.first_pictures[batch["source"]] + batch["index"]
        return numbers

    @property
    def teacher(self) -> Encoder | None:
        """The frozen teacher."""
        return dict(self.committee.items())["teacher"] if self.committee else None

    @property
    def encoders(self) -> dict[str, Encoder]:
        """The students by name."""
        return {name: self.learner(name).encoder for name in self.learners}

    @property
    def num_classes(self) -> int:
        """K, how many outputs the students have."""
        return next(iter(self.encoders.values())).num_classes

    def learner(self, name: str) -> ClassifierLearner:
        """A student with its method."""
        module = self.learners[name]
        assert isinstance(module, ClassifierLearner)
        return module

    @property
    def frozen_parts(self) -> tuple[str, ...]:
        """The teacher is rebuilt from its spec, never saved."""
        return ("committee",)

    def tokens(self, batch: PictureBatch) -> int:
        """The largest number of tokens per picture in teacher and students."""
        sized = [(encoder, self.student_size) for encoder in self.encoders.values()]
        sized += [(self.teacher, self.teacher_size)] if self.teacher else []
        return max(token_count(encoder, size) for encoder, size in sized)


def hard_classes(targets: Tensor | None, teacher: ClassifierOutput | None) -> Tensor:
    """int64 [B]: the largest entry of each label; the teacher's choice where a picture has none.

    Args:
        targets: [B, K], rows of 0 for pictures without a label; None if no picture has one.
        teacher: its output; None if all pictures have labels.
    """
    if targets is None:
        assert teacher is not None
        return teacher.logits.argmax(1)
    hard = targets.argmax(1)
    if teacher is None or not teacher.logits.shape[1]:
        return hard
    return torch.where(is_labelled(targets), hard, teacher.logits.argmax(1))


def classifier_output(encoder: Encoder, taps: Taps | None, pictures: Tensor) -> ClassifierOutput:
    """What a classifier says of pictures; an encoder without a head says no logits ([B, 0])."""
    features, tapped = taps(pictures) if taps else (encoder(pictures), [])
    logits = features.summary[:, :0] if features.logits is None else features.logits
    return ClassifierOutput(logits, features.summary, tuple(tapped))
