"""OFA-KD: every stage of the student speaks in logits, so that the teacher may be of any family.

"One-for-All: Bridge the Gap Between Heterogeneous Architectures in Knowledge Distillation", arXiv 2310.19444. CNNs,
ViTs and MLPs do not share a feature space; they do share the space of the classes. So a branch behind each of the
student's four stages ends in logits, and these learn from the teacher's last ones:

    L = label(z_s, y) + ofa(z_s, z_t) + stage_weight * sum over stages of ofa(branch(f_stage), z_t)

`ofa` raises the weight of the true class where the teacher is sure of it (`method.ofa_exponents`), in the form of the
released code or of the paper (`method.ofa_form`). The branches are thrown away after training.

FitNet (across families too, by reshaping tokens and maps), CC, RKD, CRD, KD, DKD and DIST are there to compare it with,
from the same pass of the teacher: `--student.method ofa kd fitnet`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from eyespot.data import PictureLoader
from eyespot.distill.classes.classifier_distillation import ClassifierDistillation, ClassifierStudent
from eyespot.recipes.ofa_kd.config import OfaKdConfig
from eyespot.runs.classifiers import ClassifierRun
from eyespot.runs.run import Measure


def distill(config: OfaKdConfig, output: str | Path, measure: Measure | None = None) -> Path:
    """Trains compact classifiers, or goes on where an earlier call stopped; see `ClassifierRun` for what it refuses.

    Returns:
        Folder of the student without its branches, ready for `load_classifier("run/...")` and timm; with several
        students, the folder that holds a folder for each.

    Raises:
        ValueError: a model shows no four stages; says what would do.
    """
    run = ClassifierRun(config, output)

    def task(students: Mapping[str, ClassifierStudent], pictures: PictureLoader) -> ClassifierDistillation:
        # L = CE(z_s, y) + ofa(z_s, z_t) + w * sum over stages i of ofa(branch_i(f_i), z_t): the terms `label`, `kd` and
        # `ofa`. Each student brings its branches (`distill.classes.exits`); they train with it and are left behind.
        label, mix = run.config.label, run.config.mix
        return ClassifierDistillation(students, run.teacher, label=label, mix=mix, **run.task_settings(pictures))

    students = run.teach(run.new_students(), task)
    return run.tell(students, "OFA-KD", measure)
