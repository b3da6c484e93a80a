"""GhostNetV3: branches while training, one convolution on the device, and a teacher.

"GhostNetV3: Exploring the Training Strategies for Compact Models", arXiv 2404.11202. What big networks are trained with
does not suit compact ones; what does: re-parameterised branches, a strong teacher (L = CE(p_s, y) + KD(p_s, p_t) on the
same crops), a long schedule and a moving average of the weights, but neither mixup nor CutMix. Each is a setting here:

- branches: those of timm's GhostNetV3 (`timm/ghostnetv3_100`), or put on another CNN by the spec
  (`timm/mobilenetv2_100?branches=3`); `timm/ghostnetv2_100` is the same network without them;
- teacher: `--teacher null --student.method none` for none;
- moving average: `training.ema_decay`; schedule: `training`; mixing: `mix`.

After training the branches are summed into one convolution each and all batch norms folded; the student's folder holds
that form, the stage's folder the one that was trained.

KD is the KL divergence here, soft cross-entropy in the released code: the same gradient, since they differ by the
teacher's entropy. The paper's recipe is known second-hand only; see the preset `paper`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from eyespot.data import PictureLoader
from eyespot.distill.classes.classifier_distillation import ClassifierDistillation, ClassifierStudent
from eyespot.recipes.ghostnet_v3.config import GhostNetV3Config
from eyespot.runs.classifiers import ClassifierRun
from eyespot.runs.run import Measure


def distill(config: GhostNetV3Config, output: str | Path, measure: Measure | None = None) -> Path:
    """Trains compact CNNs, or goes on where an earlier call stopped, and fuses them; refuses what `ClassifierRun` does.

    Returns:
        Folder of the student, ready for `load_classifier("run/...")`; with several students, the folder that holds a
        folder for each.
    """
    run = ClassifierRun(config, output)

    def task(students: Mapping[str, ClassifierStudent], pictures: PictureLoader) -> ClassifierDistillation:
        # Training form: every branch is there. L = CE(p_s, y) + KD(p_s, p_t), the terms `label` and `kd`.
        label, mix = run.config.label, run.config.mix
        return ClassifierDistillation(students, run.teacher, label=label, mix=mix, **run.task_settings(pictures))

    students = run.teach(run.new_students(), task)
    # Run-time form: one convolution for all branches, its batch norm folded in; the same function.
    if config.fuse:
        students = {name: student.run_time_form() for name, student in students.items()}
    return run.tell(students, "GhostNetV3's training", measure)
