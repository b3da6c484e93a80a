"""Path training: the one Task of both of SAK's stages and of all that it is compared with.

A student is taught by frozen teachers at every level, by labels of dense tasks, or by both. Stage 1 has pictures and
teachers, stage 2 labels and teachers, the multi-task and single-task baselines labels alone. Which is which follows
from the batch (has it label maps?) and from each `MultiTaskStudent`, so that all arms of a comparison can train side by
side, from one pass of the teachers.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from eyespot.data.loading.batch import MapBatch, PictureBatch
from eyespot.distill.features.standardizers import STANDARDIZERS, Standardizer, finish_all
from eyespot.distill.side_by_side import Learner, SideBySide
from eyespot.encoders import Encoder
from eyespot.encoders.multitask import Levels, MultiTaskEncoder
from eyespot.pictures import as_unit_floats, resize_pictures
from eyespot.recipes.sak.config import PathLoss, Teaching
from eyespot.recipes.sak.dense_losses import DENSE_LOSSES, LabelledPixels, labelled_pixels
from eyespot.recipes.sak.level_teachers import LevelTeachers, Size
from eyespot.recipes.sak.path_losses import PATH_LOSSES, path_loss

Widths = Mapping[str, Mapping[int, int]]
"""D_t of each teacher's levels, as `LevelTeachers.widths`."""
Targets = Mapping[str, Mapping[int, Tensor]]
"""[B, D_t, h, w] of each teacher's levels, as `LevelTeachers` gives them."""


@dataclass(frozen=True)
class MultiTaskStudent:
    """A student and how it is taught.

    Attributes:
        encoder: the student.
        teaching: "paths": each path imitates the teacher of its name (SAK). "shared": the stem imitates all teachers
            (many-to-one). "none": it learns from no teacher.
        aligners: tensors that its aligners start with, by the names that `PathTraining.adapters` gives, such as
            `encoder.adapters` of a loaded stage 1. Aligners that are not named start anew; other names are left alone.
        train_only: names of the paths that train, while all else is frozen: how a teacher is added to a finished model.
            None: everything trains.
    """

    encoder: MultiTaskEncoder
    teaching: Teaching = "paths"
    aligners: Mapping[str, Tensor] = field(default_factory=dict)
    train_only: Collection[str] | None = None


class LevelAligners(nn.ModuleDict):
    """Linear(D -> D_t) from a student's maps to a teacher's, for each level that needs one.

    Only the losses look through them; a finished student does without. Weights start from a truncated normal of
    standard deviation 0.02, biases from 0 (SAK).

    Args:
        width: D.
        wanted: D_t by level, of those levels that get an aligner.
    """

    def __init__(self, width: int, wanted: Mapping[int, int]) -> None:
        super().__init__()
        for level, theirs in wanted.items():
            linear = nn.Linear(width, theirs)
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
            self[str(level)] = linear

    def forward(self, maps: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Maps [B, D, h, w] by level -> [B, D_t, h, w]; a level without aligner stays as it is."""
        return {
            level: self[str(level)](values.movedim(1, -1)).movedim(-1, 1) if str(level) in self else values
            for level, values in maps.items()
        }


class PathLearner(Learner):
    """A student with its aligners; the terms are weighted already.

    Args:
        student: the student and how it is taught.
        widths: of all teachers' levels; empty without teachers.
        alpha: weight of what teachers say beside what labels say.
        loss: the difference of two maps, a key of `path_losses.PATH_LOSSES`.

    Raises:
        ValueError: a path that is to be taught has no teacher, or none such path is there; or starting aligners of
            other shapes.
    """

    encoder: MultiTaskEncoder

    def __init__(self, student: MultiTaskStudent, widths: Widths, alpha: float, loss: PathLoss) -> None:
        super().__init__(student.encoder)
        self.teaching, self.alpha, self.loss = student.teaching, alpha, loss
        self.train_only = None if student.train_only is None else tuple(student.train_only)
        self.teachers = self._choose_teachers(widths)
        self.aligners = nn.ModuleDict({name: self._new_aligners(widths[name]) for name in self.teachers})
        self._start_aligners(student.aligners)
        if self.train_only is not None:
            self.requires_grad_(False)
            for module in self._trained_modules():
                module.requires_grad_(True)

    def _choose_teachers(self, widths: Widths) -> tuple[str, ...]:
        """Names of the teachers that this student listens to, in their order."""
        paths = self.encoder.active if self.train_only is None else self.train_only
        if self.train_only is not None and not self.train_only:
            raise ValueError("train_only names no path, so nothing would train; None trains everything")
        unknown = [name for name in paths if name not in self.encoder.active]
        if unknown:
            shown = ", ".join(self.encoder.active) or "none"
            raise ValueError(f"train_only names {', '.join(unknown)}, but the paths that are on are: {shown}")
        if self.teaching == "none" or not widths:
            return ()
        if self.teaching == "shared":
            if self.train_only is not None:
                raise ValueError("train_only trains paths; a student whose stem is taught ('shared') has none to train")
            return tuple(widths)
        untaught = [name for name in paths if name not in widths]
        if untaught or not paths:
            raise ValueError(
                f"{self.encoder.name}: {f'no teacher for the path {untaught[0]!r}' if untaught else 'it has no paths'};"
                f" the teachers are {', '.join(widths)}. Name paths after teachers, or teach 'shared' or 'none'"
            )
        return tuple(name for name in widths if name in paths)

    def _new_aligners(self, widths: Mapping[int, int]) -> LevelAligners:
        own = self.encoder.patch_dim
        # One stem cannot be like several teachers at once, even where it is as wide as each of them.
        wanted = {level: width for level, width in widths.items() if self.teaching == "shared" or width != own}
        return LevelAligners(own, wanted)

    def _start_aligners(self, tensors: Mapping[str, Tensor]) -> None:
        own = self.adapters()
        for name, value in own.items():
            if name not in tensors:
                continue
            if tensors[name].shape != value.shape:
                raise ValueError(
                    f"the aligner {name} starts with {tuple(tensors[name].shape)} but has to be {tuple(value.shape)}: "
                    "it belongs to another student or teacher; leave it out to start anew"
                )
            value.copy_(tensors[name])

    def _trained_modules(self) -> list[nn.Module]:
        """With `train_only`: those paths and the aligners of their teachers."""
        names = self.train_only or ()
        return [
            *(self.encoder.paths[name] for name in names),
            *(self.aligners[name] for name in names if name in self.aligners),
        ]

    def train(self, mode: bool = True) -> PathLearner:
        """What is frozen stays in eval mode, so that batch norms keep their statistics and routers add no noise."""
        super().train(mode)
        if self.train_only is not None:
            self.encoder.train(False)
            for module in self._trained_modules():
                module.train(mode)
        return self

    def forward(
        self,
        images: Tensor,
        size: Size,
        targets: Targets,
        labels: Mapping[str, Tensor] | None,
        whole: Mapping[str, LabelledPixels] | None = None,
    ) -> dict[str, Tensor]:
        """The terms `TEACHER/level-N` of each level N from 0, and `task/NAME` of each labelled task, from one pass.

        Args:
            images: [B, 3, H, W] in [0, 1].
            size: (height, width), or the side of a square, at which the student looks, rounded to its stride; None:
                that of the pictures.
            targets: what the teachers show.
            labels: label maps by task, as `eyespot.dense_tasks` defines them, of the pictures' size; None: none.
            whole: see `dense_losses`, by task; None: these pictures are the whole batch.

        Raises:
            ValueError: there is nothing to learn from.
        """
        height, width = images.shape[2:]
        levels = self.encoder.look(resize_pictures(images, self.encoder.fitting_size(size or (height, width))))
        terms = self._imitation(levels, targets)
        if labels is not None:
            terms |= self._tasks(levels, labels, (height, width), whole or {})
        if not terms:
            raise ValueError(
                f"{self.encoder.name} has nothing to learn from: no teacher speaks to it, and the batch has no labels "
                f"of its tasks ({', '.join(self.encoder.tasks) or 'it has none'})"
            )
        return terms

    def _imitation(self, levels: Levels, targets: Targets) -> dict[str, Tensor]:
        terms = {}
        for teacher in self.teachers:
            theirs = targets[teacher]
            maps = levels.stem if self.teaching == "shared" else levels.paths[teacher]
            ours = self.aligners[teacher]({level: maps[level] for level in theirs})
            for level, target in theirs.items():
                terms[f"{teacher}/level-{level}"] = self.alpha * path_loss(ours[level], target, self.loss)
        return terms

    def _tasks(
        self,
        levels: Levels,
        labels: Mapping[str, Tensor],
        size: tuple[int, int],
        whole: Mapping[str, LabelledPixels],
    ) -> dict[str, Tensor]:
        tasks = {name: task for name, task in self.encoder.tasks.items() if name in labels}
        if not tasks:
            return {}
        outputs = self.encoder.answer(levels, size)
        return {
            f"task/{name}": task.weight * DENSE_LOSSES[task.kind](outputs[name], labels[name], whole.get(name))
            for name, task in tasks.items()
        }

    def adapters(self) -> dict[str, Tensor]:
        """Tensors of the aligners by dotted name: `aligners.TEACHER.LEVEL.weight`."""
        return {f"aligners.{name}": value for name, value in self.aligners.state_dict().items()}


class PathTraining(SideBySide):
    """Students -> losses against teachers, level by level, and against labels, task by task (SAK, both stages).

    A student's loss is alpha times the plain sum over teachers and levels (nothing is averaged), plus the weighted sum
    over tasks. The student is run once for both.

    Args:
        students: students by name; a single one is called "student".
        teachers: the frozen teachers; None: labels alone.
        alpha: weight of what teachers say; 1 in SAK's both stages.
        loss: the difference of two maps: "cos+l1" (SAK), "cos" or "l2".
        student_size: (height, width), or the side of a square, at which students look; None: that of the pictures.
        teacher_size: the same for teachers that take any size.
        standardizer: a key of `STANDARDIZERS`, for each teacher and level. SAK's "none"
            takes features as they are; where experts differ much in scale, smooth L1 sees little but the largest, and
            "channel" puts them on one scale (ours).
        statistics_steps: batches over which the standardizers' statistics are estimated; not for "none".

    Raises:
        ValueError: no students, alpha below 0, an unknown loss, teaching or standardizer, a path without a teacher, or
            a teacher that nobody listens to.
    """

    def __init__(
        self,
        students: MultiTaskStudent | Mapping[str, MultiTaskStudent],
        teachers: LevelTeachers | None,
        *,
        alpha: float = 1.0,
        loss: PathLoss = "cos+l1",
        student_size: Size = None,
        teacher_size: Size = None,
        standardizer: str = "none",
        statistics_steps: int = 500,
    ) -> None:
        named = {"student": students} if isinstance(students, MultiTaskStudent) else students
        widths: Widths = teachers.widths if teachers else {}
        _refuse_settings(named, alpha, loss, standardizer)

        def learner(name: str, _: Encoder) -> PathLearner:
            return PathLearner(named[name], widths, alpha, loss)

        super().__init__({name: student.encoder for name, student in named.items()}, learner)
        unused = set(widths) - {teacher for name in self.learners for teacher in self.learner(name).teachers}
        if unused:
            raise ValueError(f"no student listens to {', '.join(sorted(unused))}: leave these teachers out")
        self.committee = teachers
        self.standardizers = nn.ModuleDict(
            {
                name: nn.ModuleDict({str(level): STANDARDIZERS[standardizer](width) for level, width in levels.items()})
                for name, levels in widths.items()
            }
        )
        self.statistics_steps = 0 if standardizer == "none" or not widths else statistics_steps
        self.student_size, self.teacher_size = student_size, teacher_size

    def before_split(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Adds `whole`: how many pixels of each task are labelled, over all processes."""
        if "maps" not in batch:
            return batch
        encoders = [self.learner(name).encoder for name in self.learners]
        kinds = {name: task.kind for encoder in encoders for name, task in encoder.tasks.items()}
        return {**batch, "whole": labelled_pixels(kinds, batch["maps"])}

    def forward(self, batch: PictureBatch | MapBatch) -> dict[str, Tensor]:
        """The terms `TEACHER/level-N` and `task/NAME` and their sum `loss`; see `SideBySide.teach`.

        Args:
            batch: of a picture loader (stage 1), or of a loader of maps (stage 2).
        """
        images = as_unit_floats(batch["images"])
        maps = batch.get("maps")
        whole = batch.get("whole")
        return self.teach(images.device, images, self.student_size, self.targets(images), maps, whole)

    def targets(self, images: Tensor) -> dict[str, dict[int, Tensor]]:
        """What the students are to imitate: the teachers' maps of pictures in [0, 1], standardized."""
        return {
            name: {level: self._standardizer(name, level)(values) for level, values in maps.items()}
            for name, maps in self._seen(images).items()
        }

    def _seen(self, images: Tensor) -> dict[str, dict[int, Tensor]]:
        return self.committee(images, self.teacher_size) if self.committee else {}

    def _standardizer(self, name: str, level: int) -> Standardizer:
        levels = self.standardizers[name]
        assert isinstance(levels, nn.ModuleDict)
        module = levels[str(level)]
        assert isinstance(module, Standardizer)
        return module

    @property
    def preparation_steps(self) -> int:
        """Batches for the standardizers."""
        return self.statistics_steps

    @torch.no_grad()
    def prepare(self, batches: Iterable[PictureBatch | MapBatch]) -> None:
        """Estimates the statistics of every teacher's levels.

        Raises:
            ValueError: a teacher gives NaN or infinite features; says which.
        """
        for batch in batches:
            for name, maps in self._seen(as_unit_floats(batch["images"])).items():
                for level, values in maps.items():
                    self._standardizer(name, level).observe(values)
        widths: Widths = self.committee.widths if self.committee else {}
        finish_all(
            (f"teacher {name!r}, level {level}", self._standardizer(name, level))
            for name, levels in widths.items()
            for level in levels
        )

    def learner(self, name: str) -> PathLearner:
        """A student with its aligners."""
        module = self.learners[name]
        assert isinstance(module, PathLearner)
        return module

    @property
    def frozen_parts(self) -> tuple[str, ...]:
        """The teachers are rebuilt from their specs, never saved."""
        return ("committee",) if self.committee else ()

    def tokens(self, batch: PictureBatch | MapBatch) -> int:
        """The largest number of tokens per picture in teachers and students."""
        height, width = batch["images"].shape[2:]
        sized = [(self.learner(name).encoder, self.student_size or (height, width)) for name in self.learners]
        counts = [_patches(encoder.fitting_size(size), encoder.stride) for encoder, size in sized]
        if self.committee:
            for name, teacher in self.committee.items():
                size = self.committee.input_size(name, height, width, self.teacher_size)
                counts.append(_patches(size, teacher.stride))
        return max(counts)

    def adapters(self, student: str = "student") -> dict[str, Tensor]:
        """Tensors to be saved beside a student: `aligners.TEACHER.LEVEL.*`, `standardizers.TEACHER.LEVEL.*`."""
        learner = self.learner(student)
        statistics = self.standardizers.state_dict()
        own = [name for name in statistics if name.partition(".")[0] in learner.teachers]
        return learner.adapters() | {f"standardizers.{name}": statistics[name] for name in own}


def _refuse_settings(students: Mapping[str, MultiTaskStudent], alpha: float, loss: str, standardizer: str) -> None:
    if not alpha >= 0:
        raise ValueError(f"alpha, the weight of what teachers say, must be 0 or more, got {alpha}")
    if loss not in PATH_LOSSES:
        raise ValueError(f"there is no path loss {loss!r}; take one of {', '.join(PATH_LOSSES)}")
    if standardizer not in STANDARDIZERS:
        raise ValueError(f"there is no standardizer {standardizer!r}; take one of {', '.join(STANDARDIZERS)}")
    for name, student in students.items():
        if student.teaching not in ("paths", "shared", "none"):
            raise ValueError(f"student {name!r}: teaching is 'paths', 'shared' or 'none', not {student.teaching!r}")


def _patches(size: tuple[int, int], stride: int) -> int:
    return math.ceil(size[0] / stride) * math.ceil(size[1] / stride)
