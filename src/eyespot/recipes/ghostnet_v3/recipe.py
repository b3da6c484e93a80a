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

from pathlib import Path

from pydantic.dataclasses import dataclass

from eyespot.config import STRICT
from eyespot.encoders.forms.fusing import fused
from eyespot.runs.classifier_run import ClassifierConfig, ClassifierRun, Measure


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GhostNetV3Config(ClassifierConfig):
    """Everything there is to decide about a GhostNetV3 run."""

    fuse: bool = True
    """Write the students in the form in which they run, without branches and batch norms."""


def distill(config: GhostNetV3Config, output: str | Path, measure: Measure | None = None) -> Path:
    """Trains compact CNNs, or continues where an earlier call with the same configuration stopped; then fuses them.

    Args:
        config: see `GhostNetV3Config`; presets are in `presets/ghostnet_v3/`.
        output: the run folder.
        measure: called with teacher and students by name when all is done; by default they are measured on
            `config.test`, if that is given.

    Returns:
        Folder of the student, ready for `load_classifier("run/...")`; with several students, the folder that holds a
        folder for each.

    Raises:
        RunMismatchError: the folder holds a run of another configuration.
        ValueError: the configuration makes no whole run; says what is missing.
    """
    run = ClassifierRun(config, output)
    # Training form: every branch is there, and learns from labels and teacher.
    students = run.train(run.new_students())
    # Run-time form: one convolution for all branches, its batch norm folded in; the same function.
    if config.fuse:
        students = {name: fused(student) for name, student in students.items()}
    return run.finish(students, "GhostNetV3's training", measure)
