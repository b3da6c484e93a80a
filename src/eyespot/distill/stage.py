"""One stage of feature distillation: a committee, a student, a training, and a model folder when it is done."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lightning.fabric import Fabric
from pydantic import Field
from pydantic.dataclasses import dataclass as validated_dataclass
from torch import Tensor

from eyespot.data import DataConfig, PictureLoader, PictureSource, ViewConfig
from eyespot.data.randomness import seed_everything
from eyespot.distill.cache import CachedCommittee
from eyespot.distill.committee import Committee, teacher_size
from eyespot.distill.feature_distillation import FeatureDistillation
from eyespot.encoders import Encoder, save_encoder
from eyespot.engine.config import STRICT, EngineConfig, OptimConfig
from eyespot.engine.trainer import Trainer
from eyespot.report.teachers import describe

StandardizerKind = Literal["channel", "none", "ema", "phi_s"]


@validated_dataclass(frozen=True, kw_only=True, config=STRICT)
class StageConfig(OptimConfig):
    """One stage: an optimisation, and what student and teachers look at."""

    student_sizes: tuple[int, ...] = Field(min_length=1)
    """Side of the student's pictures in pixels; with several, one is drawn per step."""
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

    """

    fabric: Fabric
    folder: Path
    data: DataConfig
    engine: EngineConfig
    standardizer: StandardizerKind
    seed: int
    cache: str | None = None

    def __post_init__(self) -> None:
        self._sources: list[PictureSource] | None = None
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
        if is_finished(folder):
            return folder
        loader = self._loader(committee, config)
        use_cache = cached and self.cache is not None and not config.teacher_sizes
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
                "student": student.name,
                "teachers": {name: teacher.name for name, teacher in committee.items()},
                "standardizer": self.standardizer,
                "precision": self.engine.precision,
                "data": asdict(loader.config) | {"workers": None, "keep_decoded": None},
            },
        )
        trained = trainer.train()["student"]
        self.failures |= loader.failures
        assert isinstance(trained, Encoder)
        if self.fabric.is_global_zero:
            details = {"stage": name, "steps": config.steps, "teachers": lineage(committee)}
            save_encoder(trained, folder / "model", adapters=task.adapters(), details=details)
        self.fabric.barrier()
        return folder

    def sample_pictures(self, count: int, size: int) -> Tensor:
        """The first pictures of the sources, uncropped but for their middle, as floats [count, 3, size, size] in [0, 1]."""
        plain = replace(self.data, size=size, view=ViewConfig.plain(), workers=0)
        loader = PictureLoader(plain, count, sources=self._sources)
        return loader.batch(0)["images"].float() / 255

    def _loader(self, committee: Committee, config: StageConfig) -> PictureLoader:
        """Views are made once per picture, as large as anybody in the stage looks at."""
        wanted = [
            max(teacher_size(teacher, size))
            for _, teacher in committee.items()
            for size in config.teacher_sizes or (None,)
        ]
        data = replace(self.data, size=max(*wanted, *config.student_sizes))
        loader = PictureLoader(
            data, config.batch_size, self.fabric.global_rank, self.fabric.world_size, sources=self._sources
        )
        self._sources = loader.sources
        return loader

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


def lineage(committee: Committee) -> list[dict[str, Any]]:
    """The teachers that a student of this committee learns from, directly or through a proxy, with their licences."""
    known: dict[str, dict[str, Any]] = {}
    for _, teacher in committee.items():
        entries = teacher.lineage or [dict(describe(teacher))]
        known |= {entry["name"]: entry for entry in entries}
    return list(known.values())
