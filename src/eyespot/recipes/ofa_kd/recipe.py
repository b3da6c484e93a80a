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

from pathlib import Path

from eyespot.distill.classes.classifier_distillation import ClassifierDistillation
from eyespot.recipes.ofa_kd.config import OfaKdConfig
from eyespot.runs.classifiers import STAGE, ClassifierRun
from eyespot.runs.run import Measure


def distill(config: OfaKdConfig, output: str | Path, measure: Measure | None = None) -> Path:
    """Trains compact classifiers, or continues where an earlier call with the same configuration stopped.

    Args:
        config: see `OfaKdConfig`; presets are in `presets/`.
        output: the run folder.
        measure: called with teacher and students by name when all is done; by default they are measured on
            `config.test`, if that is given.

    Returns:
        Folder of the student without its branches, ready for `load_classifier("run/...")` and timm; with several
        students, the folder that holds a folder for each.

    Raises:
        RunMismatchError: the folder holds a run of another configuration.
        ValueError: the configuration makes no whole run, or a model shows no four stages; says what would do.
    """
    run = ClassifierRun(config, output)
    students = run.new_students()
    if not run.is_finished(STAGE, list(students)):
        pictures = run.open_labelled(students)
        # L = CE(z_s, y) + ofa(z_s, z_t) + w * sum over stages i of ofa(branch_i(f_i), z_t): the terms `label`, `kd` and
        # `ofa`. Each student brings its branches (`distill.classes.exits`); they train with it and are left behind.
        task = ClassifierDistillation(
            students, run.teacher, label=run.config.label, mix=run.config.mix, **run.task_settings(pictures)
        )
        run.teach(task, students, pictures)
    return run.tell(run.load(STAGE, list(students)), "OFA-KD", measure)
