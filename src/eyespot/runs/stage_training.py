"""The stages of one run, whatever their method: pictures in, a Task trained, its students in folders of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from torch import Tensor

from eyespot.data import DataConfig, PictureLoader, PictureSource, ViewConfig
from eyespot.data.loading.batch_loader import BatchLoader, dead_workers_explained
from eyespot.encoders import Encoder, load_encoder, save_encoder
from eyespot.engine.callbacks import Callback
from eyespot.engine.config import EngineConfig, OptimConfig
from eyespot.engine.task import Task
from eyespot.engine.trainer import Trainer
from eyespot.evaluate.config import ProbesConfig
from eyespot.evaluate.during_training import Probes
from eyespot.files import atomic_write_text

FAILURES_FILE = "unreadable.json"

Adapters = Mapping[str, dict[str, Tensor]]
"""Tensors to save beside each student, by its name."""


@dataclass(kw_only=True)
class StageTrainer:
    """Trains the stages of one run.

    Attributes:
        fabric: devices and processes.
        folder: of the run.
        data: pictures and views; the size of the views follows from each stage.
        engine: precision, logging, checkpoints.
        seed: of everything drawn.
        callbacks: those that watch a stage, by its name and those of its students.
        failures: reason by name of each picture that could not be read so far.
    """

    fabric: Fabric
    folder: Path
    data: DataConfig
    engine: EngineConfig
    seed: int
    callbacks: Callable[[str, Sequence[str]], Sequence[Callback]] = lambda stage, students: ()
    failures: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._sources: dict[int, list[PictureSource]] = {}

    def places(self, stage: str, students: Sequence[str]) -> dict[str, Path]:
        """Where in a stage's folder each student lies; a single one, called "student", has it for itself."""
        folder = self.folder / stage
        return {name: folder if name == "student" else folder / name for name in students}

    def open_pictures(self, size: int, batch_size: int, views: int | None) -> PictureLoader:
        """This process's share of the pictures.

        Args:
            size: side of the views in pixels.
            batch_size: over all processes.
            views: how many different ones each picture has; None: a new one every epoch.
        """
        data = replace(self.data, size=size, views=views)
        # Opened once per size, since how far pictures are shrunk on reading follows from it: a stage must not depend on
        # which stages ran before it in the same process.
        known = self._sources.get(size)
        loader = PictureLoader(data, batch_size, self.fabric.global_rank, self.fabric.world_size, sources=known)
        self._sources[size] = loader.sources
        return loader

    def watch(self, probes: ProbesConfig, size: int) -> None:
        """Lets probes measure the students of all stages while they are trained, if any are wanted.

        Args:
            probes: which.
            size: side of the pictures in pixels, if they do not say.
        """
        if probes.every and self.fabric.is_global_zero:
            path = self.folder / "probes.jsonl"
            self.callbacks = Probes(probes, path, size, self.seed, self.engine.tensorboard).of_stage

    def is_finished(self, stage: str, students: Sequence[str]) -> bool:
        """Whether a stage has made all its students."""
        return all(is_finished(place) for place in self.places(stage, students).values())

    def train(
        self,
        stage: str,
        task: Task,
        loader: BatchLoader[Any],
        optim: OptimConfig,
        signature: Mapping[str, Any],
        details: Mapping[str, Mapping[str, Any]],
        adapters: Callable[[], Adapters] = dict,
    ) -> None:
        """Trains a stage from wherever it stands and saves what it makes.

        Args:
            stage: its name.
            task: what is trained.
            loader: its pictures.
            optim: the optimisation.
            signature: what else makes this training what it is; see `Trainer`.
            details: facts to save beside each student, by its name.
            adapters: called when the training is over, in all processes, because each may hold a part.
        """
        folder = self.folder / stage
        trainer = Trainer(
            self.fabric,
            task,
            loader,
            optim=optim,
            engine=self.engine,
            folder=folder,
            metrics_path=self.folder / "metrics.jsonl",
            stage=stage,
            seed=self.seed,
            signature={
                **signature,
                "precision": self.engine.precision,
                "data": asdict(loader.config) | {"workers": None, "keep_decoded": None},
            },
            callbacks=self.callbacks(stage, tuple(task.students)),
        )
        with dead_workers_explained(self.data.workers):
            trained = trainer.train()
        self.failures |= loader.failures
        heads = adapters()
        if self.fabric.is_global_zero:
            if loader.failures:
                atomic_write_text(folder / FAILURES_FILE, json.dumps(loader.failures, indent=1))
            for name, place in self.places(stage, list(trained)).items():
                student = trained[name]
                assert isinstance(student, Encoder)
                save_encoder(student, place / "model", adapters=heads.get(name), details=dict(details[name]))
        self.fabric.barrier()

    def load(self, stage: str, students: Sequence[str]) -> dict[str, Encoder]:
        """The finished students of a stage: a single one lies in `model/`, several in `NAME/model/`."""
        self.failures |= _read_failures(self.folder / stage)
        return {name: load_encoder(f"run/{place}") for name, place in self.places(stage, students).items()}

    def sample_pictures(self, count: int, size: int) -> Tensor:
        """The pictures of the first batch, without augmentation: floats [count, 3, size, size] in [0, 1]."""
        plain = replace(self.data, size=size, view=ViewConfig.plain(), workers=0)
        loader = PictureLoader(plain, count, sources=next(iter(self._sources.values()), None))
        return loader.batch(0)["images"].float() / 255

    def place_of(self, encoder: Encoder) -> str:
        """An encoder's name; without the run folder's own path, so that a run can be moved and continued."""
        return encoder.name.replace(f"run/{self.folder}/", "run/")


def is_finished(folder: Path) -> bool:
    """Whether a student's folder in a stage holds its result; it appears as a whole, last of all."""
    return (folder / "model" / "config.json").is_file()


def _read_failures(stage: Path) -> dict[str, str]:
    """The unreadable pictures that a finished stage has met."""
    file = stage / FAILURES_FILE
    known: dict[str, str] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return known
