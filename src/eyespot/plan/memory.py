"""Memory of one device in one stage: what stays, what comes and goes, and how small a micro-batch must be to fit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from eyespot.engine.config import EngineConfig
from eyespot.engine.optim import moments_of
from eyespot.plan.passes import ShapedStage, StudentPass, TeacherPass

WEIGHT_BYTES = 4
"""Weights, gradients and moments are float32, whatever the autocast."""

RESERVE = 0.1
"""Share of a device's memory that is left to the driver, to libraries and to gaps between tensors (ours)."""

LEAST = 2
"""Smallest micro-batch that is tried: batch norm wants two."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one device at one micro-batch.

    Attributes:
        pictures: of the micro-batch.
        weights: of students and heads.
        gradients: of the same.
        moments: of the optimiser.
        average: of the students' moving average.
        exchange: gradient buckets of DDP, or the units that FSDP has gathered.
        teachers: their weights.
        batch: pictures of the whole step that this device has, 8 bits a channel.
        activations: what autograd keeps between forward and backward pass, and the targets.
        passing: what is needed beside all these at the fullest moment.
        peak: all together.
        statistics_peak: the fullest moment of the pass over the data before training.
    """

    pictures: int
    weights: int
    gradients: int
    moments: int
    average: int
    exchange: int
    teachers: int
    batch: int
    activations: int
    passing: int
    peak: int
    statistics_peak: int

    @property
    def needed(self) -> int:
        """The larger of both peaks."""
        return max(self.peak, self.statistics_peak)


def stage_memory(
    stage: ShapedStage,
    engine: EngineConfig,
    gpus: int,
    pictures: int,
    of_teachers: TeacherPass,
    of_students: StudentPass,
) -> Memory:
    """Adds up a device's memory; what each part is stands in `Memory`, how it follows in docs/plan.md.

    Args:
        stage: the stage.
        engine: how processes share the work.
        gpus: how many.
        pictures: in the micro-batch.
        of_teachers: the teachers' pass over it.
        of_students: the students' pass over it.
    """
    sharded = engine.strategy == "fsdp" and gpus > 1
    shards = gpus if sharded else 1
    weights = math.ceil(stage.trained_parameters * WEIGHT_BYTES / shards)
    averaged = sum(model.weight_bytes for model in stage.students.values()) if stage.config.ema_decay else 0
    exchange = 0
    if sharded:  # two units at a time, the one in use and the next, in the precision of computing
        exchange = 2 * stage.largest_unit * (2 if stage.bfloat16 else WEIGHT_BYTES)
    elif gpus > 1:
        exchange = stage.trained_parameters * WEIGHT_BYTES
    teachers = sum(model.weight_bytes for model in stage.teachers.values())
    teachers = math.ceil(teachers / (shards if engine.shard_teachers else 1))
    batch = math.ceil(stage.config.batch_size / gpus) * 3 * stage.view**2
    average = math.ceil(averaged / shards)
    moments = moments_of(stage.config) * weights
    staying = 2 * weights + moments + average + exchange + teachers + batch
    working = max(of_teachers.peak_bytes, of_students.peak_bytes)
    return Memory(
        pictures=pictures,
        weights=weights,
        gradients=weights,
        moments=moments,
        average=average,
        exchange=exchange,
        teachers=teachers,
        batch=batch,
        activations=of_students.activation_bytes,
        passing=working - of_students.activation_bytes,
        peak=staying + working,
        statistics_peak=weights + average + teachers + batch + of_teachers.statistics_bytes,
    )


def largest_fitting(memory_of: Callable[[int], Memory], pictures: int, limit: int) -> Memory | None:
    """The memory at the largest micro-batch up to `pictures` that surely fits; None if not even `LEAST` do.

    The peak is a maximum of straight lines in the number of pictures, so it bends upwards only: between two points it
    lies below the line through them. So what fits on that line fits.

    Args:
        memory_of: memory at a number of pictures.
        pictures: the most there can be.
        limit: bytes that there are.
    """
    whole = memory_of(pictures)
    if whole.needed <= limit:
        return whole
    fewest = min(LEAST, pictures)
    least = memory_of(fewest)
    if least.needed > limit:
        return None
    slope = (whole.needed - least.needed) / (pictures - fewest)
    return memory_of(fewest + int((limit - least.needed) / slope))
