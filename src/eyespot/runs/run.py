"""One run of a recipe: what all methods share between the configuration and the finished folder.

A recipe opens a `Run`, builds its Task for each stage and has it trained; `Run` keeps folder, processes, pictures,
probes and checkpoints, and writes students, cards, results and the report when all is done.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import Tensor

from eyespot.config import as_plain
from eyespot.data import PictureLoader, PictureSource, ViewConfig
from eyespot.data.loading.batch_loader import BatchLoader, dead_workers_explained
from eyespot.encoders import Encoder, load_encoder, save_encoder
from eyespot.encoders.lineage import Teacher
from eyespot.encoders.permissive import require_permissive
from eyespot.engine.callbacks import Callback
from eyespot.engine.config import OptimConfig
from eyespot.engine.first_process import first_awaited
from eyespot.engine.run import RunFolder
from eyespot.engine.strategy import start_fabric
from eyespot.engine.task import Task
from eyespot.engine.trainer import Trainer
from eyespot.evaluate import ResultTable
from eyespot.evaluate.during_training import Probes
from eyespot.evaluate.results import read_table
from eyespot.files import atomic_write_text, read_json, understood
from eyespot.report.exhibits.gallery import Exhibit
from eyespot.report.pages.run import RunStory, write_run_report, write_student
from eyespot.runs.config import RUNTIME_ONLY, RunConfig

FAILURES_FILE = "unreadable.json"

ConfigT = TypeVar("ConfigT", bound=RunConfig)

Measure = Callable[[dict[str, Encoder]], ResultTable | None]
"""Models by name -> a table of what was measured, None for nothing."""

Adapters = Mapping[str, dict[str, Tensor]]
"""Tensors to save beside each student, by its name."""


class Run(Generic[ConfigT]):
    """A run folder and the stages that are trained in it.

    Args:
        config: of the recipe.
        output: the run folder.

    Attributes:
        config: checked, with `steps` written into the stages.
        fabric: devices and processes.
        folder: the run folder.
        callbacks: those that watch a stage, by its name and those of its students.
        failures: reason by name of each picture that could not be read so far.

    Raises:
        RunMismatchError: the folder holds a run of another configuration.
        InUseError: another process works in the folder.
        ValueError: the configuration makes no whole run, or names models that `permissive_only` refuses.
    """

    def __init__(self, config: ConfigT, output: str | Path) -> None:
        self.config: ConfigT = config.checked()
        if self.config.permissive_only:
            require_permissive(self.config.learnt_from)
        self.fabric = start_fabric(self.config.engine)
        self.folder = RunFolder(output, as_plain(self.config), free=RUNTIME_ONLY)
        if self.fabric.is_global_zero and self.folder.path.is_dir():
            self.folder.lock()  # refused before models are loaded
        self.callbacks: Callable[[str, Sequence[str]], Sequence[Callback]] = lambda stage, students: ()
        self.failures: dict[str, str] = {}
        self._sources: dict[int, list[PictureSource]] = {}

    def begin(self, probe_size: int) -> None:
        """Records the configuration, when all that it names is there: the folder is a run from here on.

        Args:
            probe_size: side in pixels of the pictures that probes see, if the configuration does not say.
        """
        if not self.fabric.is_global_zero:
            return
        if self.config.probes.every:
            tensorboard = self.config.engine.tensorboard
            self.callbacks = Probes(
                self.config.probes, self.folder.probes, probe_size, self.config.seed, tensorboard
            ).of_stage
        self.folder.begin()

    def open_pictures(
        self, size: int, batch_size: int, views: int | None = None, in_pairs: bool = False
    ) -> PictureLoader:
        """This process's share of the pictures.

        Args:
            size: side of the views in pixels.
            batch_size: over all processes.
            views: how many different ones each picture has; None: a new one every epoch.
            in_pairs: see `PictureLoader`.
        """
        data = replace(self.config.data, size=size, views=views)
        # Opened once per size, since how far pictures are shrunk on reading follows from it: a stage must not depend on
        # which stages ran before it in the same process.
        known = self._sources.get(size)
        rank, count = self.fabric.global_rank, self.fabric.world_size
        loader = PictureLoader(data, batch_size, rank, count, sources=known, in_pairs=in_pairs)
        self._sources[size] = loader.sources
        return loader

    def is_finished(self, stage: str, students: Sequence[str]) -> bool:
        """Whether a stage has made all its students."""
        return all(is_finished(place) for place in self._places(stage, students).values())

    def train(
        self,
        stage: str,
        task: Task,
        loader: BatchLoader[Any],
        optim: OptimConfig,
        *,
        signature: Mapping[str, Any],
        teachers: Mapping[str, Sequence[Teacher]],
        adapters: Callable[[], Adapters] = dict,
    ) -> None:
        """Trains a stage from wherever it stands and saves what it makes.

        Args:
            stage: its name.
            task: what is trained.
            loader: its pictures.
            optim: the optimisation.
            signature: what else makes this training what it is; see `Trainer`.
            teachers: what each student learns from, by its name; see `lineage`.
            adapters: called when the training is over, in all processes, because each may hold a part.
        """
        folder = self.folder.stage(stage)
        trainer = Trainer(
            self.fabric,
            task,
            loader,
            optim=optim,
            engine=self.config.engine,
            folder=folder,
            metrics_path=self.folder.metrics,
            stage=stage,
            seed=self.config.seed,
            signature={
                **signature,
                "precision": self.config.engine.precision,
                "data": asdict(loader.config) | {"workers": None, "keep_decoded": None},
            },
            callbacks=self.callbacks(stage, tuple(task.students)),
        )
        with first_awaited():  # for its last probe, and for what it saves
            with dead_workers_explained(self.config.data.workers):
                trained = trainer.train()
            self.failures |= loader.failures
            heads = adapters()
            if self.fabric.is_global_zero:
                if loader.failures:
                    atomic_write_text(folder / FAILURES_FILE, json.dumps(loader.failures, indent=1))
                for name, place in self._places(stage, list(trained)).items():
                    student = trained[name]
                    assert isinstance(student, Encoder)
                    details = {"stage": stage, "steps": optim.steps, "teachers": list(teachers[name])}
                    save_encoder(student, place / "model", adapters=heads.get(name), details=details)

    def load(self, stage: str, students: Sequence[str]) -> dict[str, Encoder]:
        """The finished students of a stage: a single one lies in `model/`, several in `NAME/model/`."""
        self.failures |= _read_failures(self.folder.stage(stage))
        return {name: load_encoder(f"run/{place}") for name, place in self._places(stage, students).items()}

    def _places(self, stage: str, students: Sequence[str]) -> dict[str, Path]:
        """Where in a stage's folder each student lies; a single one, called "student", has it for itself."""
        folder = self.folder.stage(stage)
        return {name: folder if name == "student" else folder / name for name in students}

    def place_of(self, encoder: Encoder) -> str:
        """An encoder's name; without the run folder's own path, so that a run can be moved and continued."""
        return encoder.name.replace(f"run/{self.folder.path}/", "run/")

    def finish(
        self,
        students: Mapping[str, Encoder],
        *,
        titles: Mapping[str, str],
        summary: str,
        size: int,
        others: Mapping[str, Encoder],
        measure: Measure | None = None,
        data: Sequence[str] = (),
        exhibits: Sequence[Exhibit] = (),
    ) -> Path:
        """Measures, writes students, cards and report.

        Args:
            students: the finished ones by name.
            titles: heading of each student's card.
            summary: one or two sentences: what was distilled into what.
            size: shorter side in pixels at which the report shows what they see.
            others: teachers and proxy by name, shown and measured beside the students.
            measure: called with all models by name, unless the run has been measured before.
            data: further pictures that were learnt from, one phrase per source.
            exhibits: what else the report shows of the students.

        Returns:
            Folder of the student; with several, the folder that holds a folder for each.
        """
        with first_awaited():  # to measure and to draw takes longer than a barrier waits
            if self.fabric.is_global_zero:
                story = RunStory(
                    titles=titles,
                    summary=summary,
                    teachers=_all_teachers(students),
                    data=[*self.config.data.sources, *data],
                    config=as_plain(self.config),
                    encoders={**others, **students},
                    pictures=self._sample_pictures(6, size),
                    size=size,
                    results=self._results(measure, {**others, **students}),
                    failures=self.failures,
                    exhibits=exhibits,
                )
                for name, student in students.items():
                    # Its own teachers only: what was learnt from labels alone owes nothing to the committee.
                    write_student(self.folder, name, student, replace(story, teachers=student.lineage))
                write_run_report(self.folder, story)
                self.folder.release()
        return self.folder.student if len(students) == 1 else self.folder.students

    def _results(self, measure: Measure | None, encoders: dict[str, Encoder]) -> ResultTable | None:
        """What was measured, now or by an earlier call."""
        file = self.folder.results
        if not file.exists():
            table = measure(encoders) if measure else None
            if table is None:
                return None
            atomic_write_text(file, table.to_json())
        return read_table(file)

    def _sample_pictures(self, count: int, size: int) -> Tensor:
        """The pictures of the first batch, without augmentation: floats [count, 3, size, size] in [0, 1]."""
        plain = replace(self.config.data, size=size, view=ViewConfig.plain(), workers=0)
        loader = PictureLoader(plain, count, sources=next(iter(self._sources.values()), None))
        return loader.batch(0)["images"].float() / 255


def is_finished(folder: Path) -> bool:
    """Whether a student's folder in a stage holds its result; it appears as a whole, last of all."""
    return (folder / "model" / "config.json").is_file()


def _read_failures(stage: Path) -> dict[str, str]:
    """The unreadable pictures that a finished stage has met."""
    file = stage / FAILURES_FILE
    with understood(file, "delete it; then reports do not list the pictures that could not be read"):
        return {str(name): str(reason) for name, reason in read_json(file).items()} if file.is_file() else {}


def _all_teachers(students: Mapping[str, Encoder]) -> list[Teacher]:
    """What any of the students was learnt from, each once."""
    return list({entry["name"]: entry for student in students.values() for entry in student.lineage}.values())
