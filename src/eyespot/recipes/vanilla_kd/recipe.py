"""VanillaKD: plain logits, a strong recipe, a long schedule.

"Revisit the Power of Vanilla Knowledge Distillation: from Small Scale to Large Scale", arXiv 2305.15781. There is no
new method: the student minimises L = D_cls(p_s, y) + D_kd(p_s, p_t), where D_kd is the KL divergence of the softmaxes
at temperature 1 (summed over classes) and D_cls sigmoid cross-entropy (averaged over classes, so that the label is
nearly silent). What matters is the training around it: LAMB, RandAugment, mixup and CutMix that the teacher sees as
well, repeated augmentation, and hundreds of epochs. DKD, DIST, FitNet, CC, RKD and CRD are there to compare it with,
from the same pass of the teacher: `--student.method kd dkd dist`.

The paper weighs both terms by 1/2, its code by 1; LAMB does not see the difference, and we follow the code.

Ours, where nothing is known: the settings of ViT and ConvNeXtV2 students (A1 of ResNet-50), and which released weights
the teachers have.
"""

from __future__ import annotations

from pathlib import Path

from eyespot.distill.classes.classifier_distillation import ClassifierDistillation
from eyespot.recipes.vanilla_kd.config import VanillaKdConfig
from eyespot.runs.classifiers import STAGE, ClassifierRun
from eyespot.runs.run import Measure


def distill(config: VanillaKdConfig, output: str | Path, measure: Measure | None = None) -> Path:
    """Trains compact classifiers, or continues where an earlier call with the same configuration stopped.

    Args:
        config: see `VanillaKdConfig`; presets are in `presets/`.
        output: the run folder.
        measure: called with teacher and students by name when all is done; by default they are measured on
            `config.test`, if that is given.

    Returns:
        Folder of the student, ready for `load_classifier("run/...")` and timm; with several students, the folder that
        holds a folder for each.

    Raises:
        RunMismatchError: the folder holds a run of another configuration.
        ValueError: the configuration makes no whole run; says what is missing.
    """
    run = ClassifierRun(config, output)
    students = run.new_students()
    if not run.is_finished(STAGE, list(students)):
        pictures = run.open_labelled(students)
        # L = D_cls(p_s, y) + D_kd(p_s, p_t): sigmoid cross-entropy with the labels (the term `label`) and the KL
        # divergence of the softmaxes at temperature 1 (`kd`); student and teacher see the same mixed pictures.
        task = ClassifierDistillation(
            students, run.teacher, label=run.config.label, mix=run.config.mix, **run.task_settings(pictures)
        )
        run.teach(task, students, pictures)
    return run.tell(run.load(STAGE, list(students)), "VanillaKD", measure)
