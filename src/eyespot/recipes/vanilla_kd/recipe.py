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

from pydantic.dataclasses import dataclass

from eyespot.config import STRICT
from eyespot.runs.classifier_run import ClassifierConfig, ClassifierRun, Measure


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VanillaKdConfig(ClassifierConfig):
    """Everything there is to decide about a VanillaKD run."""


def distill(config: VanillaKdConfig, output: str | Path, measure: Measure | None = None) -> Path:
    """Trains compact classifiers, or continues where an earlier call with the same configuration stopped.

    Args:
        config: see `VanillaKdConfig`; presets are in `presets/vanilla_kd/`.
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
    # Every student with every method, all from one look of the frozen teacher at the same augmented, mixed pictures.
    students = run.train(run.new_students())
    return run.finish(students, "VanillaKD", measure)
