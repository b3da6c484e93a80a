"""One stage of feature distillation: a committee, a student, a training, and a model folder when it is done."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from lightning.fabric import Fabric
from pydantic import Field
from pydantic.dataclasses import dataclass as validated_dataclass
from torch import Tensor

from eyespot.data import DataConfig, PictureLoader, PictureSource, ViewConfig
from eyespot.data.loader import dead_workers_explained
from eyespot.data.randomness import seed_everything
from eyespot.distill.cache import CacheConfig, CachedCommittee, first_batches
from eyespot.distill.committee import Committee, has_random_weights
from eyespot.distill.feature_distillation import FeatureDistillation
from eyespot.encoders import Encoder, load_encoder, save_encoder
from eyespot.engine.callbacks import Callback
from eyespot.engine.config import STRICT, EngineConfig, OptimConfig
from eyespot.engine.strategy import whole
from eyespot.engine.trainer import Trainer
from eyespot.files import atomic_write_text
from eyespot.report.teachers import Teacher, describe

StandardizerKind = Literal["channel", "none", "ema", "phi_s"]

FAILURES_FILE = "unreadable.json"


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


@dataclass
class StageRunner:
    """Runs the stages of one run: trains what is not finished, loads what is.

    Attributes:
        fabric: devices and processes.
        folder: of the run.
        data: pictures and views; the size of the views follows from each stage.
        engine: precision, logging, checkpoints.
        standardizer: how targets are put on one scale.
        seed: of everything drawn.
        cache: where teacher features are kept, and how.
        callbacks: those that watch a stage, by its name and those of its students.
    """

    fabric: Fabric
    folder: Path
    data: DataConfig
    engine: EngineConfig
    standardizer: StandardizerKind
    seed: int
    cache: CacheConfig = field(default_factory=CacheConfig)
    callbacks: Callable[[str, Sequence[str]], Sequence[Callback]] = lambda stage, students: ()

    def __post_init__(self) -> None:
        self._sources: dict[int, list[PictureSource]] = {}
        self.failures: dict[str, str] = {}

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
        folder, config = self.folder / outline.name, outline.config
        places = {name: student_folder(folder, name) for name in students}
        if not all(is_finished(place) for place in places.values()):
            self._train(folder, places, outline, students, committee, config)
        self.failures |= _read_failures(folder)
        return {name: load_encoder(f"run/{place}") for name, place in places.items()}

    def _train(
        self,
        folder: Path,
        places: Mapping[str, Path],
        outline: StageOutline,
        students: Mapping[str, Encoder],
        committee: Committee,
        config: StageConfig,
    ) -> None:
        loader = self._loader(outline, students, committee)
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
        trainer = Trainer(
            self.fabric,
            task,
            loader,
            optim=config,
            engine=self.engine,
            folder=folder,
            metrics_path=self.folder / "metrics.jsonl",
            stage=outline.name,
            seed=self.seed,
            signature={
                "students": {name: self._place(student) for name, student in students.items()},
                "teachers": {name: self._place(teacher) for name, teacher in committee.items()},
                "teacher_features": self.cache.kept_as if outline.cached else "live",
                "standardizer": self.standardizer,
                "precision": self.engine.precision,
                "data": asdict(loader.config) | {"workers": None, "keep_decoded": None},
            },
            callbacks=self.callbacks(outline.name, tuple(students)),
        )
        try:
            with dead_workers_explained(self.data.workers):
                trained = trainer.train()
        finally:
            if isinstance(watched, CachedCommittee):
                watched.flush()
        self.failures |= loader.failures
        adapters = {name: whole(task.adapters(name)) for name in places}  # all processes hold a part, with FSDP
        if self.fabric.is_global_zero:
            if loader.failures:
                atomic_write_text(folder / FAILURES_FILE, json.dumps(loader.failures, indent=1))
            for name, place in places.items():
                student = trained[name]
                assert isinstance(student, Encoder)
                details = {"stage": outline.name, "steps": config.steps, "teachers": lineage(committee, students[name])}
                save_encoder(student, place / "model", adapters=adapters[name], details=details)
        self.fabric.barrier()

    def sample_pictures(self, count: int, size: int) -> Tensor:
        """The pictures of the first batch, without augmentation: floats [count, 3, size, size] in [0, 1]."""
        plain = replace(self.data, size=size, view=ViewConfig.plain(), workers=0)
        loader = PictureLoader(plain, count, sources=next(iter(self._sources.values()), None))
        return loader.batch(0)["images"].float() / 255

    def _loader(self, outline: StageOutline, students: Mapping[str, Encoder], committee: Committee) -> PictureLoader:
        views = self.data.views if outline.cached else None
        data = replace(self.data, size=view_size(outline, students, committee), views=views)
        # Opened once per size, since how far pictures are shrunk on reading follows from it: a stage must not depend on
        # which stages ran before it in the same process.
        known = self._sources.get(data.size)
        batch_size = outline.config.batch_size
        loader = PictureLoader(data, batch_size, self.fabric.global_rank, self.fabric.world_size, sources=known)
        self._sources[data.size] = loader.sources
        return loader

    def _place(self, encoder: Encoder) -> str:
        """An encoder's name; without the run folder's own path, so that a run can be moved and continued."""
        return encoder.name.replace(f"run/{self.folder}/", "run/")

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
        "view": asdict(loader.config.view),
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


def student_folder(stage: Path, name: str) -> Path:
    """Where in a stage's folder a student lies; a single one, called "student", has it for itself."""
    return stage if name == "student" else stage / name


def is_finished(folder: Path) -> bool:
    """Whether a student's folder in a stage holds its result; it appears as a whole, last of all."""
    return (folder / "model" / "config.json").is_file()


def _read_failures(stage: Path) -> dict[str, str]:
    """The unreadable pictures that a finished stage has met."""
    file = stage / FAILURES_FILE
    known: dict[str, str] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return known


def lineage(committee: Committee, student: Encoder) -> list[Teacher]:
    """All that a student of this committee learns from, directly or through a proxy, with their licences.

    Weights that the student starts from count as well, unless they are random; those of unknown licence, too.
    """
    known: dict[str, Teacher] = {entry["name"]: entry for entry in student.lineage}
    if not student.lineage and not has_random_weights(student.name):
        known[student.name] = describe(student)
    for _, teacher in committee.items():
        entries = teacher.lineage or [describe(teacher)]
        known |= {entry["name"]: entry for entry in entries}
    return list(known.values())
