"""What a checkpoint holds of a training, as one flat dict of tensors, whole or cut into slices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eyespot.engine.average import MovingAverage
from eyespot.engine.checkpoint import read_into, stored_tensors
from eyespot.engine.processes import Processes
from eyespot.engine.task import Task

TASK, OPTIMIZER, AVERAGE = "task/", "optimizer/", "ema/"


def tensors_of(task: Task, optimizer: Any, average: MovingAverage | None) -> dict[str, Tensor]:
    """`task/NAME` of what is trained, `optimizer/NAME/KEY` of each parameter's state, `ema/NAME` of the average.

    What an optimiser keeps per group of parameters is `optimizer/group NUMBER/KEY`. They are the training's own
    tensors, not copies.
    """
    tensors = {f"{TASK}{name}": value for name, value in task.trained_state().items()}
    for name, parameter in task.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{OPTIMIZER}{name}/{key}"] = value
    for number, group in enumerate(optimizer.param_groups):
        for key, value in group.items():
            if isinstance(value, Tensor):
                tensors[f"{OPTIMIZER}group {number}/{key}"] = value
    if average:
        tensors |= {f"{AVERAGE}{name}": value for name, value in average.values.items()}
    return tensors


def restore(path: Path, task: Task, optimizer: Any, average: MovingAverage | None, processes: Processes) -> None:
    """Loads a checkpoint into a training that is set up, whatever processes and strategy have written it.

    Raises:
        ValueError: tensors are missing, unexpected or of other shapes.
        CheckpointError: it is unreadable.
    """
    stored = stored_tensors(path)
    _make_optimizer_state(task, optimizer, stored)
    tensors = tensors_of(task, optimizer, average)
    missing, unexpected = sorted(tensors.keys() - stored.keys()), sorted(stored.keys() - tensors.keys())
    misshapen = [name for name in tensors.keys() & stored.keys() if tensors[name].shape != stored[name][0]]
    if missing or unexpected or misshapen:
        raise ValueError(
            f"the checkpoint {path} does not fit: missing {_shown(missing)}, unexpected {_shown(unexpected)}, "
            f"of other shapes {_shown(sorted(misshapen))}"
        )
    read_into(path, tensors, processes)


def _make_optimizer_state(task: Task, optimizer: Any, stored: dict[str, tuple[torch.Size, torch.dtype]]) -> None:
    """Room for the state that was stored: like the parameter where it has its shape, else a tensor beside it."""
    parameters = dict(task.named_parameters())
    for entry, (shape, dtype) in stored.items():
        name, _, key = entry.removeprefix(OPTIMIZER).rpartition("/")
        if not entry.startswith(OPTIMIZER) or name not in parameters:
            continue
        parameter = parameters[name]
        room = (
            torch.zeros_like(parameter, dtype=dtype, requires_grad=False)
            if shape == parameter.shape
            else torch.zeros(shape, dtype=dtype, device=parameter.device)
        )
        optimizer.state[parameter][key] = room


def _shown(names: list[str]) -> list[str]:
    return [name.partition("/")[2] for name in names[:6]]
