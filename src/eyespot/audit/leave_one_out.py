"""The experiment of an audit: for one seed, students of every part of the committee, trained and measured."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from lightning_fabric import Fabric

from eyespot.audit.config import AuditConfig
from eyespot.audit.measure import gradient_cosines, measure_held_out, readout
from eyespot.audit.pictures import AuditPictures
from eyespot.audit.result import MeasuredStudent
from eyespot.audit.similarity import Matrix
from eyespot.audit.subsets import FULL, SubsetDistillation, subsets_of
from eyespot.data.loading.batch_loader import dead_workers_explained
from eyespot.distill.committee import Committee
from eyespot.distill.features.standardizers import FeatureStandardizer
from eyespot.distill.warm_start import new_encoder
from eyespot.engine.callbacks import Callback, Students
from eyespot.engine.trainer import Trainer
from eyespot.features import Features
from eyespot.randomness import seed_everything

START = "0"
"""Name of the gradients' cosines before the first step."""


@dataclass(frozen=True)
class SeedResult:
    """What one seed's experiment gave.

    Attributes:
        students: the untrained one first.
        conflict: cosines of the teachers' gradients in the student of all, by the steps done so far.
    """

    students: list[MeasuredStudent]
    conflict: dict[str, Matrix]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that the seeds share.

    Attributes:
        fabric: device and precision.
        committee: the teachers, on the device.
        pictures: to learn from, and held out.
        targets: standardized features of the held-out pictures by teacher, on the CPU.
        standardizers: which made them, by teacher.
        config: the audit's.
    """

    fabric: Fabric
    committee: Committee
    pictures: AuditPictures
    targets: Mapping[str, Features]
    standardizers: Mapping[str, FeatureStandardizer]
    config: AuditConfig

    def run(self, seed: int) -> SeedResult:
        """Trains and measures the students of one seed, from the start: a killed seed leaves nothing behind.

        Raises:
            DivergenceError: a loss became NaN or infinite; a smaller learning rate helps.
        """
        task = self._task(seed)
        task.to(self.fabric.device)
        untrained = self._measured(task, FULL, seed)
        watch = ConflictWatch(self, task)
        if self.config.steps == 0:
            watch.before_training(0)
            return SeedResult([replace(untrained, taught_by=())], watch.found)
        self._train(task, seed, watch)
        students = [self._measured(task, name, seed) for name in task.learners]
        return SeedResult([replace(untrained, taught_by=()), *students], watch.found)

    def _task(self, seed: int) -> SubsetDistillation:
        """Students that differ in nothing but their teachers."""
        parts = subsets_of(tuple(self.targets))
        if self.config.steps == 0:
            parts = {FULL: parts[FULL]}
        student = new_encoder(self.config.student, seed, "audit")
        seed_everything(seed, "audit", "heads")
        return SubsetDistillation(
            {name: copy.deepcopy(student) for name in parts},
            parts,
            self.committee,
            copy.deepcopy(dict(self.standardizers)),
            self.config.adapter_width,
            self.config.size,
            self.config.teacher_size,
        )

    def _train(self, task: SubsetDistillation, seed: int, watch: Callback) -> None:
        optim = self.config.optim
        engine = replace(self.config.engine, checkpoint_every=optim.steps, log_every=max(1, optim.steps // 10))
        with TemporaryDirectory(prefix="eyespot-audit-") as folder, dead_workers_explained(self.pictures.data.workers):
            Trainer(
                self.fabric,
                task,
                self.pictures.loader(optim.batch_size, seed),
                optim=optim,
                engine=engine,
                folder=Path(folder),
                metrics_path=Path(folder) / "metrics.jsonl",
                stage=f"seed {seed}",
                seed=seed,
                callbacks=[watch],
            ).train()

    def _measured(self, task: SubsetDistillation, name: str, seed: int) -> MeasuredStudent:
        """Losses against its own teachers, and what can be read out about all of them."""
        learner = task.learner(name)
        losses, features = measure_held_out(
            learner, self.pictures.held_out, self.config.size, self.targets, self.config.batch_size
        )
        return MeasuredStudent(seed, learner.taught_by, losses, readout(features, self.targets))


class ConflictWatch(Callback):
    """Compares the teachers' gradients in the student of all of them: before the first step, and once a little later.

    Args:
        experiment: whose.
        task: what is trained.
    """

    def __init__(self, experiment: Experiment, task: SubsetDistillation) -> None:
        self.experiment, self.task = experiment, task
        self.every = experiment.config.conflict_steps
        self.found: dict[str, Matrix] = {}

    def before_training(self, step: int) -> None:
        """See `Callback.before_training`."""
        self._look(START)

    def after_step(self, step: int, students: Students) -> None:
        """See `Callback.after_step`."""
        if step == self.every:
            self._look(str(step))

    def _look(self, name: str) -> None:
        config = self.experiment.config
        self.found[name] = gradient_cosines(
            self.task.learner(FULL),
            self.experiment.pictures.held_out,
            config.size,
            self.experiment.targets,
            config.batch_size,
        )
