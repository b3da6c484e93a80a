"""One stage of feature distillation: a committee, a student, a training, and a model folder when it is done."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from lightning.fabric import Fabric
from pydantic import Field
from pydantic.dataclasses import dataclass as validated_dataclass
from torch import Tensor

from eyespot.data import DataConfig, PictureLoader, PictureSource, ViewConfig
from eyespot.data.randomness import seed_everything
from eyespot.distill.cache import CachedCommittee
from eyespot.distill.committee import Committee, has_random_weights
from eyespot.distill.feature_distillation import FeatureDistillation
from eyespot.encoders import Encoder, save_encoder
from eyespot.engine.callbacks import Callback
from eyespot.engine.config import STRICT, EngineConfig, OptimConfig
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
        cache: folder for teacher features; None computes them live.
        callbacks: those that watch a stage, by its name.
    """

    fabric: Fabric
    folder: Path
    data: DataConfig
    engine: EngineConfig
    standardizer: StandardizerKind
    seed: int
    cache: str | None = None
    callbacks: Callable[[str], Sequence[Callback]] = lambda stage: ()

    def __post_init__(self) -> None:
        self._sources: dict[int, list[PictureSource]] = {}
        self.failures: dict[str, str] = {}

    def run(self, name: str, student: Encoder, committee: Committee, config: StageConfig, cached: bool = False) -> Path:
        """Trains a stage from wherever it stands, unless it is finished.

        Args:
            name: of the stage, and of its folder.
            student: what is trained.
            committee: its teachers.
            config: the stage.
            cached: keep the committee's features in `cache`, if there is one.

        Returns:
            The stage's folder; its model is in `model/`, adapter heads and standardizers beside it.
        """
        folder = self.folder / name
        self.failures |= _read_failures(folder)
        if is_finished(folder):
            return folder
        use_cache = cached and self.cache is not None and not config.teacher_sizes
        loader = self._loader(student, committee, config, self.data.views if use_cache else None)
        watched = self._cached(committee, loader) if use_cache else committee
        seed_everything(self.seed, name, "heads")
        task = FeatureDistillation(
            student,
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
            stage=name,
            seed=self.seed,
            signature={
                "student": self._place(student),
                "teachers": {name: self._place(teacher) for name, teacher in committee.items()},
                "teacher_features": "cached in float16" if use_cache else "live",
                "standardizer": self.standardizer,
                "precision": self.engine.precision,
                "data": asdict(loader.config) | {"workers": None, "keep_decoded": None},
            },
            callbacks=self.callbacks(name),
        )
        trained = trainer.train()["student"]
        self.failures |= loader.failures
        assert isinstance(trained, Encoder)
        if self.fabric.is_global_zero:
            if loader.failures:
                atomic_write_text(folder / FAILURES_FILE, json.dumps(loader.failures, indent=1))
            details = {"stage": name, "steps": config.steps, "teachers": lineage(committee, student)}
            save_encoder(trained, folder / "model", adapters=task.adapters(), details=details)
        self.fabric.barrier()
        return folder

    def sample_pictures(self, count: int, size: int) -> Tensor:
        """The pictures of the first batch, without augmentation: floats [count, 3, size, size] in [0, 1]."""
        plain = replace(self.data, size=size, view=ViewConfig.plain(), workers=0)
        loader = PictureLoader(plain, count, sources=next(iter(self._sources.values()), None))
        return loader.batch(0)["images"].float() / 255

    def _loader(self, student: Encoder, committee: Committee, config: StageConfig, views: int | None) -> PictureLoader:
        """Views are made once per picture, as large as anybody in the stage looks at."""
        sides = config.teacher_sizes or (None,)
        wanted = [max(teacher.fitting_size(side)) for _, teacher in committee.items() for side in sides]
        wanted += [max(student.fitting_size(side)) for side in config.student_sizes]
        data = replace(self.data, size=max(wanted), views=views)
        # Opened once per size, since how far pictures are shrunk on reading follows from it: a stage must not depend on
        # which stages ran before it in the same process.
        known = self._sources.get(data.size)
        loader = PictureLoader(data, config.batch_size, self.fabric.global_rank, self.fabric.world_size, sources=known)
        self._sources[data.size] = loader.sources
        return loader

    def _place(self, encoder: Encoder) -> str:
        """An encoder's name; without the run folder's own path, so that a run can be moved and continued."""
        return encoder.name.replace(f"run/{self.folder}/", "run/")

    def _cached(self, committee: Committee, loader: PictureLoader) -> CachedCommittee:
        if self.data.views is None:
            raise ValueError("the teacher cache needs a fixed number of views per picture: set data.views")
        assert self.cache is not None
        setting = {
            "data": loader.fingerprint(),
            "view": asdict(loader.config.view),
            "size": loader.config.size,
            "max_side": loader.config.max_side,
            "views": self.data.views,
            "seed": self.data.seed,
            "precision": self.engine.precision,
        }
        lengths = [len(source) for source in loader.sources]
        return CachedCommittee(committee, self.cache, setting=setting, source_lengths=lengths, views=self.data.views)


def is_finished(stage: Path) -> bool:
    """Whether a stage folder holds its result; it appears as a whole, last of all."""
    return (stage / "model" / "config.json").is_file()


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
