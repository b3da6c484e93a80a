"""What happens when a training diverges: it stops, keeps the batch that did it, and names the way back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from eyespot.engine.processes import Processes
from eyespot.engine.strategy import local
from eyespot.files import atomic_path


class DivergenceError(RuntimeError):
    """A loss or the gradient became NaN or infinite."""


class Replayable(Protocol):
    """Data that can give the batch of any step again."""

    def batch(self, step: int) -> Mapping[str, Any]:
        """This process's batch of one step."""


def refuse_divergence(
    values: dict[str, float],
    rows: Tensor,
    *,
    step: int,
    data: Replayable,
    folder: Path,
    process: int,
    last_good: Path | None,
) -> None:
    """Raises if a logged value is not finite.

    Args:
        values: averages by name over the steps since the last check, over all processes.
        rows: [steps, names], this process's values of each of those steps.
        step: steps done.
        data: replays the offending batch, which is saved to `folder/diverged-step-N.pt` (`...-process-P.pt` for P > 0).
        folder: of the stage.
        process: this process's number; every process keeps its own part of the batch.
        last_good: newest checkpoint; it was written after a check like this one.

    Raises:
        DivergenceError: names the terms that went first, their step, the saved batch and the checkpoint.
    """
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    if not broken:
        return
    bad_steps = (~rows.isfinite().all(1)).nonzero().flatten().tolist()
    where = "on another process"
    if bad_steps:
        # From then on everything is broken; what broke first tells why.
        first = rows[bad_steps[0]].isfinite().tolist()
        broken = [name for name, fine in zip(values, first, strict=True) if not fine]
        bad_step = step - len(rows) + bad_steps[0]
        path = folder / f"diverged-step-{bad_step}{f'-process-{process}' if process else ''}.pt"
        with atomic_path(path) as temporary:
            torch.save(dict(data.batch(bad_step)), temporary)
        where = f"in step {bad_step}, whose batch is kept in {path}"
    raise DivergenceError(
        f"training diverged: {', '.join(broken)} not finite, first {where}. "
        f"Last good checkpoint: {last_good or 'none yet'}. "
        "Lower the learning rate, set clip_norm, or look at that batch."
    )


def refuse_broken_weights(state: Mapping[str, Tensor], step: int, last_good: Path | None, processes: Processes) -> None:
    """Raises if a checkpoint would hold NaN or infinite weights: the last update may have overflowed.

    Args:
        state: what is about to be saved; of tensors that are cut into slices, each process looks at its own.
        step: steps done.
        last_good: newest checkpoint.
        processes: all of them have to call this.

    Raises:
        DivergenceError: names the weights, the step and the checkpoint. In every process.
    """
    found = [name for name, value in state.items() if not local(value).isfinite().all()]
    broken = list(dict.fromkeys(name for names in processes.gather(found) for name in names))
    if broken:
        raise DivergenceError(
            f"training diverged: the update of step {step - 1} made {', '.join(broken[:4])}"
            f"{' and others' if len(broken) > 4 else ''} not finite. Last good checkpoint: {last_good or 'none yet'}. "
            "Lower the learning rate or set clip_norm."
        )
