"""The plan: what each stage computes, holds, reads and takes, before anything is paid for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from eyespot.data import DataConfig
from eyespot.distill.cache import CacheConfig
from eyespot.engine.config import EngineConfig
from eyespot.plan.hardware import Hardware
from eyespot.plan.memory import LEAST, RESERVE, Memory, largest_fitting, stage_memory
from eyespot.plan.passes import ShapedStage
from eyespot.plan.shapes import PlannedModel, ShapeWorld
from eyespot.plan.storage import CachePlan, PictureCount, count_pictures, plan_cache
from eyespot.runs.outline import StageConfig, StageOutline

HOUR = 3600.0


@dataclass(frozen=True)
class ModelFacts:
    """One model of a stage.

    Attributes:
        spec: as it is named.
        parameters: how many.
        sizes: (height, width) in pixels of what it looks at.
        forward_flops: operations per picture, a multiply-accumulate being two; mean over its sizes.
    """

    spec: str
    parameters: int
    sizes: tuple[tuple[int, int], ...]
    forward_flops: float


@dataclass(frozen=True)
class CacheFacts:
    """What a cache of the teachers' features would bring.

    Attributes:
        used: whether the configuration keeps one.
        plan: rows and bytes.
        fill_hours: device hours to compute every row once; None without a count of pictures.
        live_hours: device hours of the teachers without a cache, statistics included.
        read_bytes_per_second: what each device must read to keep up.
    """

    used: bool
    plan: CachePlan
    fill_hours: float | None
    live_hours: float
    read_bytes_per_second: float

    @property
    def saved_hours(self) -> float | None:
        """Device hours less; negative if the features are used less than once."""
        return None if self.fill_hours is None else self.live_hours - self.fill_hours


@dataclass(frozen=True)
class StagePlan:
    """One stage.

    Attributes:
        name: of the stage.
        config: its settings.
        teachers: by name.
        students: by name; without heads.
        head_parameters: of all adapter heads.
        teacher_flops: operations per picture of all teachers, mean over the sizes drawn.
        forward_flops: of students and heads, mean over the sizes drawn.
        backward_flops: likewise.
        statistics_steps: batches that the teachers look at before training.
        memory: of one device as configured.
        fitting: of one device at the largest micro-batch that surely fits; None if none does.
        accumulate: micro-batches per step that this takes on each device.
        teacher_hours: device hours of the teachers, live or to fill the cache.
        student_hours: device hours of students and heads.
        step_seconds: mean, all devices working side by side.
        pictures_read: over the whole stage.
        picture_bytes: read over the whole stage; None if pictures could not be measured.
        cache: None where it cannot be kept, because the teachers look at several sizes or are made by an earlier stage.
    """

    name: str
    config: StageConfig
    teachers: dict[str, ModelFacts]
    students: dict[str, ModelFacts]
    head_parameters: int
    teacher_flops: float
    forward_flops: float
    backward_flops: float
    statistics_steps: int
    memory: Memory
    fitting: Memory | None
    accumulate: int | None
    teacher_hours: float
    student_hours: float
    step_seconds: float
    pictures_read: int
    picture_bytes: float | None
    cache: CacheFacts | None

    @property
    def flops(self) -> float:
        """Operations of the whole stage with live teachers, statistics included."""
        learned = self.pictures_read * (self.teacher_flops + self.forward_flops + self.backward_flops)
        return learned + self.statistics_steps * self.config.batch_size * self.teacher_flops

    @property
    def hours(self) -> float:
        """Device hours of the whole stage."""
        return self.teacher_hours + self.student_hours


@dataclass(frozen=True)
class Plan:
    """All stages of a configuration on given devices.

    Attributes:
        hardware: of one device.
        gpus: how many.
        precision: of the training.
        stages: in order.
        pictures: the data.
        notes: what was assumed, and what could not be known.
    """

    hardware: Hardware
    gpus: int
    precision: str
    stages: list[StagePlan]
    pictures: PictureCount
    notes: list[str]

    @property
    def hours(self) -> float:
        """Device hours of all stages."""
        return sum(stage.hours for stage in self.stages)

    @property
    def flops(self) -> float:
        """Operations of all stages."""
        return sum(stage.flops for stage in self.stages)

    @property
    def fits(self) -> bool:
        """Whether every stage fits into a device at some micro-batch."""
        return all(stage.fitting is not None for stage in self.stages)

    def as_json(self) -> dict[str, Any]:
        """All numbers, in bytes, operations, hours and seconds."""
        stages = [{**asdict(stage), "flops": stage.flops, "hours": stage.hours} for stage in self.stages]
        total = {"flops": self.flops, "hours": self.hours, "wall_hours": self.hours / self.gpus, "fits": self.fits}
        return {**asdict(self), "stages": stages, "total": total}


def make_plan(
    outlines: Sequence[StageOutline],
    data: DataConfig,
    engine: EngineConfig,
    *,
    hardware: Hardware,
    gpus: int = 1,
    standardizer: str = "channel",
    cache: CacheConfig | None = None,
    pictures: int | None = None,
    picture_bytes: float | None = None,
    stand_ins: Mapping[str, str] | None = None,
) -> Plan:
    """Plans a training; nothing is trained and nothing is fetched.

    Args:
        outlines: its stages.
        data: its pictures.
        engine: precision, and how processes share the work.
        hardware: of one device.
        gpus: how many devices; replaces `engine.devices` and `engine.nodes`.
        standardizer: kind of the targets' standardizer.
        cache: how teacher features are, or would be, kept.
        pictures: how many different ones there are, where the data are not on this machine.
        picture_bytes: mean size of their files, likewise.
        stand_ins: spec -> spec of a model of the same shape to plan with.

    Raises:
        UnseenModelError: a model is not on this machine; says how to go on.
        ValueError: nothing to plan, or numbers that cannot be.
    """
    if gpus < 1:
        raise ValueError(f"--gpus must be at least 1, got {gpus}")
    if not outlines:
        raise ValueError("this configuration has no stage to plan")
    known = count_pictures(data, pictures, picture_bytes)
    world = ShapeWorld(stand_ins)
    made: dict[str, str] = {}
    stages = []
    for outline in outlines:
        _refuse_uneven(outline, gpus)
        shaped = ShapedStage(world, outline, made, engine, standardizer)
        stages.append(
            _Estimate(shaped, outline, engine, hardware, gpus).plan(known, data.views, cache or CacheConfig())
        )
        made[outline.name] = next(iter(outline.students.values()))
    notes = [*known.unknown, *_assumptions(hardware, engine, data, stages)]
    notes += [f"{spec}: planned with the shape of {other}" for spec, other in (stand_ins or {}).items()]
    return Plan(hardware, gpus, engine.precision, stages, known, notes)


class _Estimate:
    """Runs one stage on shapes and draws conclusions."""

    def __init__(
        self, shaped: ShapedStage, outline: StageOutline, engine: EngineConfig, hardware: Hardware, gpus: int
    ) -> None:
        self.shaped, self.outline, self.engine = shaped, outline, engine
        self.hardware, self.gpus, self.config = hardware, gpus, outline.config
        self.largest = (max(self.config.student_sizes), max(self.config.teacher_sizes, default=None))

    def plan(self, pictures: PictureCount, views: int | None, cache: CacheConfig) -> StagePlan:
        """Puts the stage's plan together."""
        config, shaped = self.config, self.shaped
        micro_batch = self._micro_batch()
        memory = self._memory(micro_batch)
        limit = int(self.hardware.memory_bytes * (1 - RESERVE))
        fitting = largest_fitting(self._memory, micro_batch, limit)
        teacher_passes = {size: shaped.teacher_pass(self._few, size) for size in shaped.teacher_sizes}
        student_passes = {size: shaped.student_pass(self._few, size, self.largest[1]) for size in config.student_sizes}
        teacher_flops = {name: fmean(one.flops[name] for one in teacher_passes.values()) for name in shaped.teachers}
        forward = fmean(one.forward_flops for one in student_passes.values())
        backward = fmean(one.backward_flops for one in student_passes.values())
        read = config.steps * config.batch_size
        statistics_steps = min(config.statistics_steps, config.steps)
        live = self._hours(sum(teacher_flops.values()), self.hardware.teacher_utilisation)
        student_hours = read * self._hours(forward + backward, self.hardware.training_utilisation)
        live_hours = (read + statistics_steps * config.batch_size) * live
        facts = None
        if not config.teacher_sizes and not any(spec.startswith("stage:") for spec in self.outline.teachers):
            kept = plan_cache(next(iter(teacher_passes.values())).shapes, cache, views, pictures.count)
            fill = None if kept.rows is None else kept.rows * live
            speed = read / max(student_hours * HOUR, 1e-12)
            facts = CacheFacts(self.outline.cached, kept, fill, live_hours, speed * sum(kept.row_bytes.values()))
        teacher_hours = facts.fill_hours if facts and facts.used and facts.fill_hours is not None else live_hours
        return StagePlan(
            name=self.outline.name,
            config=config,
            teachers=self._facts(shaped.teachers, shaped.teacher_sizes, teacher_flops),
            students=self._facts(shaped.students, config.student_sizes, self._student_flops()),
            head_parameters=shaped.trained_parameters - sum(one.parameters for one in shaped.students.values()),
            teacher_flops=sum(teacher_flops.values()),
            forward_flops=forward,
            backward_flops=backward,
            statistics_steps=statistics_steps,
            memory=memory,
            fitting=fitting,
            accumulate=math.ceil(self._per_device / fitting.pictures) if fitting else None,
            teacher_hours=teacher_hours,
            student_hours=student_hours,
            step_seconds=(teacher_hours + student_hours) * HOUR / (config.steps * self.gpus),
            pictures_read=read,
            picture_bytes=None if pictures.mean_bytes is None else read * pictures.mean_bytes,
            cache=facts,
        )

    @property
    def _per_device(self) -> int:
        """Pictures of a step on each device."""
        return math.ceil(self.config.batch_size / self.gpus)

    @property
    def _few(self) -> int:
        return min(LEAST, self._per_device)

    def _micro_batch(self) -> int:
        """Pictures at a time as configured, at the largest sizes; see `Trainer`."""
        parts = self.config.accumulate
        if self.engine.max_tokens is not None:
            tokens = self.shaped.tokens(*self.largest)
            parts = max(parts, math.ceil(self._per_device / max(1, self.engine.max_tokens // tokens)))
        return math.ceil(self._per_device / min(parts, self._per_device))

    def _memory(self, pictures: int) -> Memory:
        """At the largest sizes."""
        of_teachers = self.shaped.teacher_pass(pictures, self.largest[1])
        of_students = self.shaped.student_pass(pictures, *self.largest)
        return stage_memory(self.shaped, self.engine, self.gpus, pictures, of_teachers, of_students)

    def _hours(self, flops: float, utilisation: float) -> float:
        """Device hours of so many operations."""
        return flops / (self.hardware.peak(self.shaped.bfloat16) * utilisation) / HOUR

    def _student_flops(self) -> dict[str, float]:
        return {
            name: fmean(self.shaped.student_flops(name, size) for size in self.config.student_sizes)
            for name in self.shaped.students
        }

    @staticmethod
    def _facts(
        models: Mapping[str, PlannedModel], sizes: Sequence[int | None], flops: Mapping[str, float]
    ) -> dict[str, ModelFacts]:
        return {
            name: ModelFacts(
                model.spec,
                model.parameters,
                tuple(dict.fromkeys(model.encoder.fitting_size(size) for size in sizes)),
                flops[name],
            )
            for name, model in models.items()
        }


def _refuse_uneven(outline: StageOutline, gpus: int) -> None:
    if outline.config.batch_size % gpus:
        raise ValueError(
            f"{outline.name}: a batch of {outline.config.batch_size} pictures cannot be divided among {gpus} devices; "
            f"take a multiple of {gpus}"
        )


def _assumptions(hardware: Hardware, engine: EngineConfig, data: DataConfig, stages: Sequence[StagePlan]) -> list[str]:
    """What the numbers rest on, in words."""
    notes = [
        f"time: operations / (peak x utilisation), {hardware.teacher_utilisation:.0%} of the peak for teachers and "
        f"{hardware.training_utilisation:.0%} for training; reading pictures, exchange between devices, evaluation and "
        "checkpoints are not in it",
        f"memory: {RESERVE:.0%} of the device is left to driver, libraries and gaps",
    ]
    if engine.activation_checkpointing:
        notes.append(
            "engine.activation_checkpointing: on a processor, gaps that the C library leaves between tensors were seen "
            "to make a step three times as large; MALLOC_MMAP_THRESHOLD_=65536 in the environment (glibc) avoids them"
        )
    if engine.compile:
        notes.append("engine.compile: the plan counts the uncompiled step, which is slower and larger")
    if data.views is None and any(stage.cache for stage in stages):
        notes.append("cache: data.views is not set; sizes are for one view per picture")
    return notes
