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

from pydantic.dataclasses import dataclass

from eyespot.config import STRICT
from eyespot.runs.classifier_run import ClassifierConfig, ClassifierRun, Measure


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OfaKdConfig(ClassifierConfig):
    """Everything there is to decide about an OFA-KD run."""


def distill(config: OfaKdConfig, output: str | Path, measure: Measure | None = None) -> Path:
    """Trains compact classifiers, or continues where an earlier call with the same configuration stopped.

    Args:
        config: see `OfaKdConfig`; presets are in `presets/ofa_kd/`.
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
    # The branches (eyespot.distill.classes.exits) belong to the method and train with their student.
    students = run.train(run.new_students())
    return run.finish(students, "OFA-KD", measure)
