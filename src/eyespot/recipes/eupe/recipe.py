"""EUPE: many experts -> one large proxy -> one small student, at one resolution, then at several.

"Efficient Universal Perception Encoder", arXiv 2603.22387, section 4. Three stages, each a feature distillation:

1. scale up: the proxy learns from all teachers at once, each looking at its native size;
2. scale down: the student learns from the frozen proxy alone, at one resolution;
3. multi-resolution finetuning: student and proxy draw their resolutions independently in every step.

Without a proxy (`proxy: null`) stage 2 distils the teachers straight into the student: the paper's direct baseline,
the same Task with another committee.

Ours, where the paper is silent: the proxy's architecture and stage 1's schedule (set by the presets); AdamW, short
warm-up, cosine to zero; augmentation parameters; student and teachers see the same view; grids are matched after the
adapter head; statistics take no more batches than the stage has steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from eyespot.distill.cache import CachedCommittee
from eyespot.distill.cache.opening import cached_committee
from eyespot.distill.committee import Committee, load_committee
from eyespot.distill.features.feature_distillation import FeatureDistillation
from eyespot.distill.features.losses import FeatureLoss
from eyespot.distill.warm_start import new_encoder
from eyespot.encoders import Encoder
from eyespot.encoders.frozen import load_teacher_model
from eyespot.encoders.lineage import lineage
from eyespot.encoders.naming import model_name, short_names
from eyespot.engine.strategy import whole
from eyespot.randomness import seed_everything
from eyespot.recipes.eupe.config import STAGE_1, STAGE_2, STAGE_3, EupeConfig, outline
from eyespot.runs.outline import StageOutline, view_size
from eyespot.runs.run import Measure, Run

LOSS = FeatureLoss(summary_cosine=1.0, patch_cosine=0.9, patch_smooth_l1=0.1)
"""L = sum over teachers of (1 - cos) of the summaries + 0.9 (1 - cos) + 0.1 smooth-L1 of the patches (eq. 4 to 7)."""


def distill(config: EupeConfig, output: str | Path, measure: Measure | None = None) -> Path:
    """Trains proxy and student, or continues where an earlier call with the same configuration stopped.

    Args:
        config: see `EupeConfig`; presets are in `presets/`.
        output: the run folder.
        measure: called with the finished models by name; its table goes into results.json, card and report. Not called
            again for a run that has been measured.

    Returns:
        Folder of the student, ready for `load_encoder("run/...")` and timm; with several students, the folder that
        holds a folder for each.

    Raises:
        RunMismatchError: the folder holds a run of another configuration.
        ValueError: the configuration makes no whole run, or names models that `permissive_only` refuses.
    """
    run = Run(config, output)
    config = run.config
    stages = {stage.name: stage for stage in outline(config)}
    experts = load_committee(config.teachers, config.max_grid) if config.teachers else None
    run.begin(probe_size=max(config.stage2.student_sizes))

    # Stage 1, scaling up: the frozen experts teach one large proxy.
    proxy: Encoder | None = None
    if STAGE_1 in stages:
        assert experts is not None and config.proxy is not None
        untrained = {"student": new_encoder(config.proxy, config.seed, "proxy")}
        proxy = _teach(run, stages[STAGE_1], untrained, experts)["student"]
    elif config.proxy is not None:
        proxy = load_teacher_model(config.proxy)

    # Stage 2, scaling down at one resolution: the proxy alone teaches the students. Without a proxy, the experts do.
    committee = Committee({"proxy": proxy}) if proxy else experts
    assert committee is not None
    starts = dict(zip(config.students, config.student.start or config.students.values(), strict=True))
    students = {name: new_encoder(spec, config.seed, "student") for name, spec in starts.items()}
    if STAGE_2 in stages:
        students = _teach(run, stages[STAGE_2], students, committee)

    # Stage 3, several resolutions, drawn independently for students and proxy.
    if STAGE_3 in stages:
        students = _teach(run, stages[STAGE_3], students, committee)

    shown = dict(experts.items()) if experts else {}
    return run.finish(
        students,
        titles={
            name: f"{model_name(spec)}, distilled by EUPE"
            for name, spec in zip(students, config.student.model, strict=True)
        },
        summary=_summary(config, students),
        size=2 * max(config.stage2.student_sizes),
        others=shown | ({"proxy": proxy} if proxy else {}),
        measure=measure,
    )


def _teach(
    run: Run[EupeConfig], stage: StageOutline, students: Mapping[str, Encoder], committee: Committee
) -> dict[str, Encoder]:
    """One stage, unless it is finished: students minimise `LOSS` against a committee's standardized features."""
    if not run.is_finished(stage.name, list(students)):
        size = view_size(stage, students, committee)
        pictures = run.open_pictures(size, stage.config.batch_size, run.config.data.views if stage.cached else None)
        teachers: Committee | CachedCommittee = committee
        if stage.cached:
            teachers = cached_committee(committee, pictures, run.config.cache, run.config.engine.precision)
            pictures.extra_entries = teachers.extra_entries
        seed_everything(run.config.seed, stage.name, "heads")
        task = FeatureDistillation(
            students,
            teachers,
            loss=LOSS,
            adapter_width=stage.config.adapter_width,
            student_sizes=stage.config.student_sizes,
            teacher_sizes=stage.config.teacher_sizes,
            standardizer=run.config.standardizer,
            statistics_steps=stage.config.statistics_steps,
            seed=run.config.seed,
        )
        try:
            run.train(
                stage.name,
                task,
                pictures,
                stage.config,
                signature={
                    "students": {name: run.place_of(student) for name, student in students.items()},
                    "teachers": {name: run.place_of(teacher) for name, teacher in committee.items()},
                    "teacher_features": run.config.cache.kept_as if stage.cached else "live",
                    "standardizer": run.config.standardizer,
                },
                teachers={name: lineage(committee.teachers.values(), student) for name, student in students.items()},
                adapters=lambda: {name: whole(task.adapters(name)) for name in students},
            )
        finally:
            if isinstance(teachers, CachedCommittee):
                teachers.flush()
    return run.load(stage.name, list(students))


def _summary(config: EupeConfig, students: Mapping[str, Encoder]) -> str:
    """What was distilled into what, for card and report."""
    learnt_from = dict.fromkeys(entry["name"] for student in students.values() for entry in student.lineage)
    names = ", ".join(short_names(learnt_from))
    way = f"through the proxy {model_name(config.proxy)}" if config.proxy else "directly"
    made = "One encoder" if len(students) == 1 else f"{len(students)} encoders"
    of = "one teacher" if len(learnt_from) == 1 else f"{len(learnt_from)} teachers"
    return f"{made} that learned from {of} ({names}), {way}, without labels."
