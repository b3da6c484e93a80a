"""A multi-task model's own answers, compared with the labels of a set; nothing is trained."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Mapping
from types import EllipsisType

import torch
from torch import Tensor

from eyespot.data.labelled.samples import MultiTaskData
from eyespot.data.sets import open_multitask
from eyespot.dense_tasks import DenseTask
from eyespot.encoders.base import Encoder
from eyespot.evaluate.extraction import FeatureBank, eval_mode
from eyespot.evaluate.probing.background import prepared
from eyespot.evaluate.protocols.multitask.boundary import THRESHOLDS
from eyespot.evaluate.protocols.multitask.metrics import DenseMetric, metric_for, metric_name


def run(
    bank: FeatureBank,
    data: MultiTaskData,
    seed: int = 0,
    *,
    boundary_thresholds: int = THRESHOLDS,
    padded_to: tuple[int, int] | None = None,
) -> dict[str, float | None]:
    """All dense metrics of a multi-task model. Nothing is random.

    Pictures are taken one by one at their own size, so the evaluation's `size` plays no part, see `predicted`. SAK
    pads every picture to the size of the training's crops (`padded_to`); ours, by default, only to whole patches.

    Args:
        bank: a multi-task model.
        data: its validation pictures.
        seed: not used; it is there because every task has one.
        boundary_thresholds: at how many thresholds boundaries are matched; the time of odsF grows with them.
        padded_to: (height, width) in pixels up to which smaller pictures are padded.

    Returns:
        "TASK METRIC" -> value, see `metrics.METRICS`, for the tasks that model and data share; None where no pixel of
        the whole set is labelled.

    Raises:
        ValueError: see `evaluate_multitask`.
    """
    found = evaluate_multitask(
        bank.encoder, data, boundary_thresholds=boundary_thresholds, padded_to=padded_to, progress=bank.progress
    )
    return {key: None if math.isnan(value) else value for key, value in found.items()}


def check(model: Encoder, data: MultiTaskData, **options: object) -> None:
    """Refuses what `run` could not measure, before a picture is looked at.

    Raises:
        ValueError: no multi-task model, no picture, no task in common, other classes.
    """
    shared_tasks(model, data.tasks)
    if not len(data):
        raise ValueError(f"{data.name} has no picture to evaluate on")


def evaluate_multitask(
    model: Encoder,
    data: MultiTaskData,
    tasks: Collection[str] | None = None,
    *,
    boundary_thresholds: int = THRESHOLDS,
    padded_to: tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """The metrics of a multi-task model, in the order of the data's tasks; see `run`.

    Args:
        model: has `tasks`; runs in eval mode where it is.
        data: pictures with label maps.
        tasks: names of those to measure; all that model and data share if None.
        boundary_thresholds: see `run`.
        padded_to: see `run`.
        progress: called with (pictures done, pictures in all) after each.

    Returns:
        "TASK METRIC" -> value, e.g. {"segmentation mIoU": 0.5}; NaN, and a warning, where no pixel of the
        whole set is labelled, or all alike.

    Raises:
        ValueError: no multi-task model, no picture, a task that model or data do not have, none in common, other
            classes, NaN.
    """
    chosen = shared_tasks(model, data.tasks, tasks)
    if not len(data):
        raise ValueError(f"{data.name} has no picture to evaluate on")
    metrics = {name: metric_for(task, boundary_thresholds) for name, task in chosen.items()}
    for done, sample in enumerate(prepared(data.read, len(data), workers=1), 1):
        _count(metrics, predicted(model, sample.image, padded_to), sample.maps)
        if progress is not None:
            progress(done, len(data))
    found = {
        metric_name(name, task): value for name, task in chosen.items() for value in metrics[name].compute().values()
    }
    if nothing := [name for name, value in found.items() if math.isnan(value)]:
        warnings.warn(f"{data.name}: its labels leave nothing to measure of {', '.join(nothing)}", stacklevel=2)
    return found


def _count(metrics: Mapping[str, DenseMetric], outputs: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> None:
    for name, metric in metrics.items():
        if name in labels:  # a set may label some pictures for some tasks only
            metric.update(outputs[name], labels[name])


def shared_tasks(
    model: Encoder, known: Mapping[str, DenseTask], wanted: Collection[str] | None = None
) -> dict[str, DenseTask]:
    """The data's tasks that a model answers too, in the data's order.

    Args:
        model: a multi-task model.
        known: the data's tasks.
        wanted: names that must be among them; None for whichever are.

    Raises:
        ValueError: see `evaluate_multitask`.
    """
    own = model.tasks
    if not own:
        raise ValueError(
            f"{model.name} has no task heads, so it cannot be measured on multitask: give a multi-task model, e.g. a "
            "run of the recipe sak (run/FOLDER), or train probes on this one (--tasks segmentation depth normals)"
        )
    missing = [name for name in wanted or () if name not in known or name not in own]
    shared = {name: task for name, task in known.items() if name in own and (wanted is None or name in wanted)}
    if missing or not shared:
        raise ValueError(
            f"{', '.join(missing) or 'no task'} in common: {model.name} answers {', '.join(own)}, the data "
            f"are labelled for {', '.join(known) or 'none'}"
        )
    for name, task in shared.items():
        if (task.kind, task.channels) != (own[name].kind, own[name].channels):
            raise ValueError(
                f"{name}: {model.name} answers in {own[name].channels} channels ({own[name].kind}), the data have "
                f"{task.channels} ({task.kind}); evaluate on the set that it was trained on, "
                "or leave the task out: NAME:FOLDER?tasks=ONE+ANOTHER"
            )
    return shared


@torch.no_grad()
def predicted(model: Encoder, image: Tensor, padded_to: tuple[int, int] | None = None) -> dict[str, Tensor]:
    """A multi-task model's raw outputs for one picture, each float32 [C, H, W] on the CPU.

    The picture is not resized: its mean colour is put around it, equally on all sides, up to whole patches (or the one
    size that the model takes), and what was put there is cut from the outputs.

    Args:
        model: has `tasks`; runs in eval mode where it is.
        image: uint8 [3, H, W].
        padded_to: (height, width) in pixels up to which smaller pictures are padded.

    Raises:
        ValueError: a picture that is larger than the one size which the model takes; NaN.
    """
    canvas, inside = padded(model, image, padded_to)
    with eval_mode(model):
        outputs = model.named_outputs(canvas)
    found = {name: outputs[f"task_{name}"][0][inside].float().cpu() for name in model.tasks}
    for name, output in found.items():
        if not bool(output.isfinite().all()):
            raise ValueError(f"{model.name} answered NaN or infinity for {name}; it cannot be evaluated")
    return found


def padded(
    model: Encoder, image: Tensor, padded_to: tuple[int, int] | None = None
) -> tuple[Tensor, tuple[slice | EllipsisType, ...]]:
    """A picture, uint8 [3, H, W], as a model takes it: [1, 3, H', W'] in [0, 1], and where in it the picture lies.

    See `predicted`.
    """
    height, width = image.shape[1:]
    size = _padded_size(model, (height, width), padded_to or (0, 0))
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    inside = (..., slice(top, top + height), slice(left, left + width))
    canvas = model.mean.expand(1, 3, *size).clone()
    canvas[inside] = image.to(model.device) / 255
    return canvas, inside


def _padded_size(model: Encoder, size: tuple[int, int], least: tuple[int, int]) -> tuple[int, int]:
    """The smallest size that the model takes and into which the picture fits."""
    native = model.native_size
    if native is not None:
        if size[0] > native[0] or size[1] > native[1]:
            raise ValueError(
                f"{model.name} takes {native[0]}x{native[1]} only, a picture has {size[0]}x{size[1]}; have pictures "
                f"and labels shrunk when they are read: NAME:FOLDER?height={native[0]}&width={native[1]}"
            )
        return native
    height, width = (-(-max(side, low) // model.stride) * model.stride for side, low in zip(size, least, strict=True))
    return height, width


def open_validation(source: str, limit: int | None = None) -> MultiTaskData:
    """The validation pictures of a set as people write it, "NAME:FOLDER?option=value"; see `open_multitask`."""
    return open_multitask(source, "val", limit)
