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

from collections.abc import Mapping
from pathlib import Path

from eyespot.data import PictureLoader
from eyespot.distill.classes.classifier_distillation import ClassifierDistillation, ClassifierStudent
from eyespot.recipes.vanilla_kd.config import VanillaKdConfig
from eyespot.runs.classifiers import ClassifierRun
from eyespot.runs.run import Measure


def distill(config: VanillaKdConfig, output: str | Path, measure: Measure | None = None) -> Path:
    """Trains compact classifiers, or goes on where an earlier call stopped; see `ClassifierRun` for what it refuses.

    Returns:
        Folder of the student, ready for `load_classifier("run/...")` and timm; with several students, the folder that
        holds a folder for each.
    """
    run = ClassifierRun(config, output)

    def task(students: Mapping[str, ClassifierStudent], pictures: PictureLoader) -> ClassifierDistillation:
        # L = D_cls(p_s, y) + D_kd(p_s, p_t): sigmoid cross-entropy with the labels (the term `label`) and the KL
        # divergence of the softmaxes at temperature 1 (`kd`); student and teacher see the same mixed pictures.
        label, mix = run.config.label, run.config.mix
        return ClassifierDistillation(students, run.teacher, label=label, mix=mix, **run.task_settings(pictures))

    students = run.teach(run.new_students(), task)
    return run.tell(students, "VanillaKD", measure)
