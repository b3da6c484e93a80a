"""SAK, the Swiss Army Knife: a multi-task model that keeps what each teacher of a committee is good at.

"Swiss Army Knife: Synergizing Biases in Knowledge from Vision Foundation Models for Multi-Task Learning", ICLR 2025,
arXiv 2410.14633. One plain ViT, the stem, is shared; beside it runs one thin path of adapters per teacher, taught by
that teacher alone; a router per level and task mixes stem and paths into what the task's head reads.

1. Without labels, every path learns its teacher's maps at four levels: L_KD, summed over teachers and levels.
2. With the labels of all tasks, routers and heads join in and everything learns: the sum of w_k L_k, and alpha L_KD.

Aligners and teachers are gone after training. What SAK is compared with are other forms of the same student, trained
in the same run from the same look of the teachers:

| form | paths | is taught | mixes by |
|---|---|---|---|
| sak | one per teacher | each path by its teacher | routers |
| no_router | one per teacher | each path by its teacher | plain sum |
| many_to_one | none | the stem by all teachers | - |
| multi_task | none | by labels alone | - |
| single_task | none, one model per task | by labels alone | - |

A teacher can be added later: `student.start` names a finished run, and `teachers` those it has and the new one; then
stage 1 trains the new path alone.

Ours: each teacher normalises for itself and sees its own size (`inputs: as_published` is the paper's one normalisation
for all); teachers without inner layers (ONNX files) teach the last level only; key points as a task.
"""

from __future__ import annotations

from pathlib import Path

from pydantic.dataclasses import dataclass

from eyespot.config import STRICT
from eyespot.recipes.sak.run import Measure, MultiTaskConfig, MultiTaskRun


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SakConfig(MultiTaskConfig):
    """Everything there is to decide about a SAK run."""


def distill(config: SakConfig, output: str | Path, measure: Measure | None = None) -> Path:
    """Trains multi-task models, or continues where an earlier call with the same configuration stopped.

    Args:
        config: see `SakConfig`; presets are in `presets/sak/`.
        output: the run folder.
        measure: called with the finished students by name; by default they are measured on the validation pictures of
            `config.labelled.source`.

    Returns:
        Folder of the student, ready for `load_encoder("run/...")`; with several, the folder that holds a folder for
        each.

    Raises:
        RunMismatchError: the folder holds a run of another configuration.
        ValueError: the configuration makes no whole run, or names models that `permissive_only` refuses.
    """
    run = MultiTaskRun(config, output)
    bodies = run.new_bodies()
    # Stage 1, without labels: every path learns what its own teacher says, and the stem with all of them.
    if run.config.stage1.steps:
        bodies = run.teach_paths(bodies)
    # Stage 2, with labels: routers and heads join in, everything learns, and the teachers go on.
    students = run.with_heads(bodies)
    if run.config.stage2.steps:
        students = run.teach_tasks(students)
    return run.finish(students, measure)
