"""One stage of feature distillation: a committee, a student, a training, and a model folder when it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass as validated_dataclass

from eyespot.config import STRICT
from eyespot.data import PictureLoader
from eyespot.distill.cache import CacheConfig, CachedCommittee, first_batches
from eyespot.distill.committee import Committee
from eyespot.distill.features.feature_distillation import FeatureDistillation
from eyespot.encoders import Encoder
from eyespot.encoders.lineage import lineage
from eyespot.engine.config import OptimConfig
from eyespot.engine.strategy import whole
from eyespot.randomness import seed_everything
from eyespot.runs.stage_training import StageTrainer

StandardizerKind = Literal["channel", "none", "ema", "phi_s"]


@validated_dataclass(frozen=True, kw_only=True, config=STRICT)
class StageConfig(OptimConfig):
    """One stage: an optimisation, and what student and teachers look at."""

    student_sizes: tuple[int, ...] = Field(min_length=1)
    """Side of the student's pictures in pixels, rounded to its stride; with several, one is drawn per step."""
    teacher_sizes: tuple[int, ...] = ()
    """The same for teachers that take any size, drawn independently. Empty: each teacher's own default size."""
    adapter_width: int = Field(gt=0)
    """Hidden width of the adapter heads."""
    statistics_steps: int = Field(default=500, gt=0)
    """Batches for the target statistics (never more than the stage has steps)."""


@dataclass(frozen=True, kw_only=True)
class StageOutline:
    """What a stage is going to do, before anything is loaded.

    Attributes:
        name: of the stage, and of its folder.
        students: specs of what is trained, by name; they share the teachers' work. A single one is called "student".
        teachers: specs of its committee; "stage:NAME" is what an earlier stage makes.
        config: the stage.
        max_grid: largest side of the teachers' patch maps, see `Committee`.
        cached: whether the committee's features are kept.
        view_sizes: sides in pixels that the pictures must serve: those of the students, and of other stages that use
            the same cache.
    """

    name: str
    students: Mapping[str, str]
    teachers: tuple[str, ...]
    config: StageConfig
    max_grid: int | None = None
    cached: bool = False
    view_sizes: tuple[int, ...] = ()


@dataclass(kw_only=True)
class StageRunner(StageTrainer):
    """Runs the feature distillations of one run: trains what is not finished, loads what is.

    Attributes:
        standardizer: how targets are put on one scale.
        cache: where teacher features are kept, and how.
    """

    standardizer: StandardizerKind
    cache: CacheConfig = field(default_factory=CacheConfig)

    def run(self, outline: StageOutline, students: Mapping[str, Encoder], committee: Committee) -> dict[str, Encoder]:
        """Trains a stage from wherever it stands, unless it is finished.

        Args:
            outline: the stage.
            students: what is trained, by name.
            committee: its teachers.

        Returns:
            The finished students, as they are loaded from the stage's folder: a single one lies in `model/`, several in
            `NAME/model/`, each with its adapter heads and the standardizers.
        """
        if not self.is_finished(outline.name, list(students)):
            self._teach(outline, students, committee)
        return self.load(outline.name, list(students))

    def _teach(self, outline: StageOutline, students: Mapping[str, Encoder], committee: Committee) -> None:
        config = outline.config
        views = self.data.views if outline.cached else None
        loader = self.open_pictures(view_size(outline, students, committee), config.batch_size, views)
        watched = self._cached(committee, loader) if outline.cached else committee
        if isinstance(watched, CachedCommittee):
            loader.companion = watched.companion
        seed_everything(self.seed, outline.name, "heads")
        task = FeatureDistillation(
            students,
            watched,
            adapter_width=config.adapter_width,
            student_sizes=config.student_sizes,
            teacher_sizes=config.teacher_sizes,
            standardizer=self.standardizer,
            statistics_steps=config.statistics_steps,
            seed=self.seed,
        )
        facts = {"stage": outline.name, "steps": config.steps}
        try:
            self.train(
                outline.name,
                task,
                loader,
                config,
                signature={
                    "students": {name: self.place_of(student) for name, student in students.items()},
                    "teachers": {name: self.place_of(teacher) for name, teacher in committee.items()},
                    "teacher_features": self.cache.kept_as if outline.cached else "live",
                    "standardizer": self.standardizer,
                },
                details={
                    name: {**facts, "teachers": lineage(committee.teachers.values(), one)}
                    for name, one in students.items()
                },
                adapters=lambda: {name: whole(task.adapters(name)) for name in students},
            )
        finally:
            if isinstance(watched, CachedCommittee):
                watched.flush()

    def _cached(self, committee: Committee, loader: PictureLoader) -> CachedCommittee:
        return cached_committee(committee, loader, self.cache, self.engine.precision)


def cached_committee(
    committee: Committee, loader: PictureLoader, cache: CacheConfig, precision: str
) -> CachedCommittee:
    """A committee that keeps its features of a loader's pictures.

    Raises:
        ValueError: the loader brings new views every epoch.
        CacheMismatchError: the folder holds features of something else.
    """
    views = loader.config.views
    if views is None:
        raise ValueError("the teacher cache needs a fixed number of views per picture: set data.views")
    assert cache.folder is not None
    setting = {
        "data": loader.fingerprint(),
        "view": loader.config.view.as_setting(),
        "size": loader.config.size,
        "enough_side": loader.config.enough_side,
        "views": views,
        "seed": loader.config.seed,
        "precision": precision,
    }
    lengths = [len(source) for source in loader.sources]
    return CachedCommittee(
        committee,
        cache.folder,
        setting=setting,
        source_lengths=lengths,
        views=views,
        store=cache.store,
        rank=cache.rank,
        sample=partial(first_batches, loader),
    )


def view_size(outline: StageOutline, students: Mapping[str, Encoder], committee: Committee) -> int:
    """Side in pixels of a stage's pictures: made once, as large as anybody looks at them."""
    sides = outline.config.teacher_sizes or (None,)
    wanted = [max(teacher.fitting_size(side)) for _, teacher in committee.items() for side in sides]
    wanted += [max(student.fitting_size(side)) for student in students.values() for side in outline.view_sizes]
    return max(wanted)
