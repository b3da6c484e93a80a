"""Arms: students that learn from the same pictures by different methods, all seeds of all arms from one pass."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from eyespot.config import build, merged
from eyespot.distill.classes.classifier_distillation import ClassifierDistillation, ClassifierStudent
from eyespot.distill.classes.config import MethodSettings
from eyespot.distill.warm_start import new_encoder
from eyespot.encoders import load_classifier
from eyespot.evaluate import evaluate
from eyespot.files import atomic_write_text
from eyespot.report import machine_info
from eyespot.runs.classifier_config import ClassifierConfig
from eyespot.runs.classifiers import ClassifierRun

Results = dict[str, dict[str, list[float]]]
"""Arm -> metric -> one value per seed."""


@dataclass(frozen=True)
class Arm:
    """One way to teach one model.

    Attributes:
        model: spec of the student.
        method: of distillation.
        settings: of the method.
    """

    model: str
    method: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """What all experiments share.

    Attributes:
        shared: folder with teachers and data.
        work: folder for runs.
        seeds: of the students' random weights.
        scale: factor on the number of steps.
    """

    shared: Path
    work: Path
    seeds: tuple[int, ...]
    scale: float

    @property
    def pictures(self) -> Path:
        """Caltech-101."""
        return self.shared / "data" / "caltech101"

    @property
    def teacher(self) -> str:
        """The CNN that `train_teacher` makes."""
        return f"run/{self.work / 'teacher'}"

    def fraction(self, per_class: int) -> Path:
        """The first training pictures of each class, as links."""
        folder = self.work / f"first-{per_class}"
        if not folder.exists():
            for pictures in sorted((self.pictures / "train").iterdir()):
                (folder / pictures.name).mkdir(parents=True)
                for file in sorted(pictures.iterdir())[:per_class]:
                    (folder / pictures.name / file.name).symlink_to(file)
        return folder

    def run(self, name: str, arms: Mapping[str, Arm], settings: Mapping[str, Any]) -> Results:
        """Trains all seeds of all arms side by side, unless that is done, and measures them on the validation set.

        Args:
            name: of the run's folder.
            arms: by name.
            settings: of the run, laid over `BASIS`.
        """
        found = self.work / f"{name}.json"
        if not found.exists():
            config = build(ClassifierConfig, merged(self.basis(), settings), name)
            run = ClassifierRun(config, self.work / name)
            classes, names = run.outputs.count, run.outputs.names
            begun = {
                student_of(arm, seed): ClassifierStudent(
                    new_encoder(one.model, seed, "student", lambda spec: load_classifier(spec, classes, names)),
                    one.method if config.teacher else "none",
                    build(MethodSettings, one.settings, arm),
                )
                for arm, one in arms.items()
                for seed in self.seeds
            }
            label, mix = config.label, config.mix
            students = run.teach(
                begun,
                lambda given, pictures: ClassifierDistillation(
                    given, run.teacher, label=label, mix=mix, **run.task_settings(pictures)
                ),
            )
            tasks = ["classification"] if config.label.weight else ["knn", "linear"]
            rows = self.measured(students, tasks, config.student_size)
            atomic_write_text(found, json.dumps(rows))
            shutil.rmtree(self.work / name)
        rows, first = json.loads(found.read_text()), self.seeds[0]
        return {
            arm: {
                key: [rows[student_of(arm, seed)][key] for seed in self.seeds] for key in rows[student_of(arm, first)]
            }
            for arm in arms
        }

    def measured(self, models: Mapping[str, Any], tasks: list[str], size: int | None) -> dict[str, Any]:
        """Rows of numbers by model."""
        return dict(evaluate(models, tasks, dict.fromkeys(tasks, str(self.pictures)), size).rows)

    def basis(self) -> dict[str, Any]:
        """Settings of every run; a crop and a flip, AdamW, cosine."""
        return {
            "teacher": self.teacher,
            "data": {
                "sources": [str(self.pictures / "train")],
                "keep_decoded": True,
                "view": {"scale": [0.25, 1.0], "jitter": 0.0, "blur": 0.0, "solarize": 0.0},
            },
            "student": {"model": ["unused"], "method": ["kd"]},
            "training": self.training(300),
            "student_size": 48,
            "teacher_size": 64,
            "engine": {"accelerator": "cpu", "progress": False, "tensorboard": False, "checkpoint_every": 100},
        }

    def training(self, steps: int, **changes: Any) -> dict[str, Any]:
        """An optimisation over so many steps, times the scale."""
        count = max(2, round(steps * self.scale))
        rates = {"learning_rate": 2e-3, "weight_decay": 0.05, "warmup_steps": count // 15, "clip_norm": 1.0}
        return {"steps": count, "batch_size": 64, **rates, **changes}

    def publish(self, results: Results, output: Path) -> None:
        """Writes `output` (.json) and a table beside it (.md)."""
        record = {
            "machine": machine_info(),
            "seeds": list(self.seeds),
            "scale": self.scale,
            "results": results,
        }
        atomic_write_text(output, json.dumps(record, indent=1) + "\n")
        lines = "\n".join(table(results))
        atomic_write_text(output.with_suffix(".md"), lines + "\n")
        print(lines)


def student_of(arm: str, seed: int) -> str:
    """Name of a student; modules cannot have dots in theirs."""
    return f"{arm.replace('.', ',')}-{seed}"


def table(results: Results) -> list[str]:
    """Markdown: mean ± standard deviation over the seeds, shares in per cent."""
    shown = (
        "classification/top1",
        "classification/ECE",
        "knn/accuracy",
        "linear/accuracy",
        "cost/params",
        "cost/GMACs",
    )
    keys = [key for key in shown if any(key in values for values in results.values())]
    lines = ["| arm | " + " | ".join(keys) + " | seeds |", "|---" * (len(keys) + 2) + "|"]
    for arm, values in results.items():
        cells = [cell(values[key], key) if key in values else "" for key in keys]
        lines.append(f"| {arm} | {' | '.join(cells)} | {len(next(iter(values.values())))} |")
    return lines


def cell(values: list[float], key: str) -> str:
    """Mean and spread of one metric."""
    if key.startswith("cost/"):
        return f"{values[0]:.3f}"
    shares = [100 * value for value in values]
    return f"{mean(shares):.1f} ± {stdev(shares):.1f}" if len(shares) > 1 else f"{shares[0]:.1f}"
