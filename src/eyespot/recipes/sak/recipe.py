"""SAK, the Swiss Army Knife: a multi-task model that keeps what each teacher of a committee is good at.

"Swiss Army Knife: Synergizing Biases in Knowledge from Vision Foundation Models for Multi-Task Learning", ICLR 2025,
arXiv 2410.14633. One plain ViT, the stem, is shared; beside it runs one thin path of adapters per teacher, taught by
that teacher alone; a router per level and task mixes stem and paths into what the task's head reads.

1. Without labels, every path learns its teacher's maps at four levels: L_KD, summed over teachers and levels.
2. With the labels of all tasks, routers and heads join in and everything learns: the sum of w_k L_k, and alpha L_KD.

Aligners and teachers are gone after training. What SAK is compared with are other forms of the same student, trained
in the same run from the same pass of the teachers:

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

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from eyespot.data.labelled.samples import MultiTaskData
from eyespot.data.loading.batch_loader import BatchLoader
from eyespot.data.loading.maps import MultiTaskLoader
from eyespot.data.sets.opening import open_multitask
from eyespot.encoders import Encoder
from eyespot.encoders.frozen import load_teacher_model
from eyespot.encoders.lineage import lineage
from eyespot.encoders.multitask import MultiTaskEncoder
from eyespot.encoders.naming import model_name, short_names
from eyespot.engine.config import OptimConfig
from eyespot.engine.strategy import whole
from eyespot.evaluate import ResultTable, evaluate
from eyespot.evaluate.protocols.multitask.table import with_delta_m
from eyespot.randomness import seed_everything
from eyespot.recipes.sak.config import SINGLE, SakConfig
from eyespot.recipes.sak.level_teachers import LevelTeachers, depths_of
from eyespot.recipes.sak.path_training import MultiTaskStudent, PathTraining, Teaching
from eyespot.recipes.sak.students import StudentBuilder, multitask
from eyespot.report.exhibits.multitask import Answers, Routing
from eyespot.runs.run import Measure, Run

STAGE_1, STAGE_2 = "stage-1-paths", "stage-2-tasks"


def distill(config: SakConfig, output: str | Path, measure: Measure | None = None) -> Path:
    """Trains multi-task models, or continues where an earlier call with the same configuration stopped.

    Args:
        config: see `SakConfig`; presets are in `presets/`.
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
    run = Run(config, output)
    config = run.config
    labelled = open_multitask(config.labelled.source, "train")
    shown = open_multitask(config.labelled.source, "val")  # refused now, not when all is trained
    if not len(shown):
        raise ValueError(f"{config.labelled.source} has no validation picture: students are measured on these")
    names = short_names(config.teachers)
    teachers = {name: load_teacher_model(spec) for name, spec in zip(names, config.teachers, strict=True)}
    students = StudentBuilder(config, teachers)
    run.begin(probe_size=config.stage1.student_size)
    bodies = students.bodies()

    # Stage 1, without labels: every path learns what its own teacher says, and the stem with all of them.
    # L = L_KD = sum over teachers t and levels l of d(path_t at l, t at l), with d = 0.9 (1 - cos) + 0.1 smooth-L1.
    if config.stage1.steps:
        bodies = _teach_paths(run, students, bodies, teachers)

    # Stage 2, with labels: routers and heads join in, everything learns, and the teachers go on.
    # L = sum over tasks k of w_k L_k(answer_k, label_k) + alpha L_KD.
    finished = students.with_heads(bodies, labelled.tasks)
    if config.stage2.steps:
        finished = _teach_tasks(run, finished, teachers, labelled)
    return _finish(run, finished, teachers, shown, measure)


def _teach_paths(
    run: Run[SakConfig],
    students: StudentBuilder,
    bodies: Mapping[Teaching, MultiTaskEncoder],
    teachers: Mapping[str, Encoder],
) -> dict[Teaching, MultiTaskEncoder]:
    """Stage 1 for the students that teachers teach, unless it is finished; the others come back as they are."""
    config = run.config.stage1
    taught = students.taught(bodies)
    if taught and not run.is_finished(STAGE_1, list(taught)):
        size = max(max(one.encoder.fitting_size(config.student_size)) for one in taught.values())
        pictures = run.open_pictures(size, config.batch_size, run.config.data.views)
        speaking = {name: teachers[name] for name in students.new_paths or teachers}
        _train(run, STAGE_1, taught, teachers, speaking, pictures, config, student_size=config.student_size)
    found = run.load(STAGE_1, list(taught))
    return {**bodies, **{one.teaching: multitask(found[name]) for name, one in taught.items()}}


def _teach_tasks(
    run: Run[SakConfig],
    students: Mapping[str, MultiTaskStudent],
    teachers: Mapping[str, Encoder],
    labelled: MultiTaskData,
) -> dict[str, MultiTaskStudent]:
    """Stage 2, unless it is finished; the finished students."""
    config = run.config
    if not run.is_finished(STAGE_2, list(students)):
        maps = MultiTaskLoader(
            labelled,
            config.labelled.view,
            config.stage2.batch_size,
            run.fabric.global_rank,
            run.fabric.world_size,
            seed=config.data.seed,
            workers=config.data.workers,
            keep_decoded=config.data.keep_decoded,
        )
        listening = config.alpha and any(one.teaching != "none" for one in students.values())
        speaking = teachers if listening else {}
        _train(run, STAGE_2, students, teachers, speaking, maps, config.stage2, alpha=config.alpha)
    found = run.load(STAGE_2, list(students))
    return {name: replace(one, encoder=multitask(found[name])) for name, one in students.items()}


def _train(
    run: Run[SakConfig],
    stage: str,
    students: Mapping[str, MultiTaskStudent],
    committee: Mapping[str, Encoder],
    teachers: Mapping[str, Encoder],
    loader: BatchLoader[Any],
    optim: OptimConfig,
    **settings: Any,
) -> None:
    """One stage: `PathTraining`, whose terms are `TEACHER/level-N` (times alpha) and `task/NAME` (times w_k).

    Args:
        run: the run.
        stage: its name.
        students: what is trained.
        committee: all teachers of the run: where the students' lineage comes from.
        teachers: those that speak in this stage.
        loader: pictures, with maps in stage 2.
        optim: the optimisation.
        settings: of the Task, beside those that both stages share.
    """
    config = run.config
    seed_everything(config.seed, "sak", stage)
    task = PathTraining(
        students,
        _levels(config, students, teachers) if teachers else None,
        loss=config.path_loss,
        standardizer=config.standardizer,
        statistics_steps=config.statistics_steps,
        **settings,
    )
    if run.fabric.world_size > 1 and run.fabric.device.type == "cuda":  # torch has none for processors
        nn.SyncBatchNorm.convert_sync_batchnorm(task)
    run.train(
        stage,
        task,
        loader,
        optim,
        signature={
            "students": {name: _signature(run, student) for name, student in students.items()},
            "teachers": {name: teacher.name for name, teacher in teachers.items()},
            "inputs": config.inputs,
            "loss": config.path_loss,
            "standardizer": config.standardizer,
            **settings,
        },
        teachers={
            name: lineage([] if student.teaching == "none" else committee.values(), student.encoder)
            for name, student in students.items()
        },
        adapters=lambda: {name: whole(task.adapters(name)) for name in students},
    )


def _levels(
    config: SakConfig, students: Mapping[str, MultiTaskStudent], teachers: Mapping[str, Encoder]
) -> LevelTeachers:
    depths = depths_of(next(iter(students.values())).encoder.levels)  # the same in all: they share one model
    return LevelTeachers(teachers, depths=depths, inputs=config.inputs, max_grid=config.max_grid)


def _signature(run: Run[SakConfig], student: MultiTaskStudent) -> list[Any]:
    begin = run.place_of(student.encoder)
    return [begin, student.teaching, list(student.encoder.tasks), list(student.train_only or ())]


def _finish(
    run: Run[SakConfig],
    finished: Mapping[str, MultiTaskStudent],
    teachers: Mapping[str, Encoder],
    shown: MultiTaskData,
    measure: Measure | None,
) -> Path:
    """Measures on the validation pictures `shown`, writes students, cards and report."""
    config = run.config
    students = {name: one.encoder.eval() for name, one in finished.items()}
    about = f"{model_name(config.student.model)}, by SAK"
    made = "One model" if len(students) == 1 else f"{len(students)} models"
    source = f"from {', '.join(teachers)} and labels" if teachers else "from labels alone"

    def measured(encoders: dict[str, Encoder]) -> ResultTable | None:
        made_here = {name: encoder for name, encoder in encoders.items() if name in students}
        if measure is not None:
            return measure(made_here)
        table = evaluate(made_here, ["multitask"], {"multitask": config.labelled.source})
        return with_delta_m(table, [name for name in made_here if name.startswith(SINGLE)])

    return run.finish(
        students,
        titles={name: about if name == "student" else f"{about} ({name})" for name in students},
        summary=f"{made} for {', '.join(shown.tasks)}, learnt {source}.",
        size=config.stage1.student_size,
        others=teachers,
        measure=measured,
        data=[config.labelled.source],
        exhibits=[Answers(shown), Routing(shown)],
    )
