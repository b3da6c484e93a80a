"""What happens when a training diverges: it stops, keeps the batch that did it, and names the way back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from eyespot.files import atomic_path


class DivergenceError(RuntimeError):
    """A loss or the gradient became NaN or infinite."""


class Replayable(Protocol):
    """Data that can give the batch of any step again."""

    def batch(self, step: int) -> Mapping[str, Any]:
        """This process's batch of one step."""


def refuse_divergence(
    values: dict[str, float], rows: Tensor, step: int, data: Replayable, folder: Path, last_good: Path | None
) -> None:
    """Raises if a logged value is not finite.

    Args:
        values: averages over the steps since the last check, over all processes.
        rows: [steps, names], this process's values of each of those steps.
        step: steps done.
        data: replays the offending batch, which is saved to `folder/diverged-step-N.pt`.
        folder: of the stage.
        last_good: newest checkpoint; it was written after a check like this one.

    Raises:
        DivergenceError: names the terms, the step, the saved batch and the checkpoint.

    """
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    if not broken:
        return
    bad_steps = (~rows.isfinite().all(1)).nonzero().flatten().tolist()
    where = "on another process"
    if bad_steps:
        bad_step = step - len(rows) + bad_steps[0]
        path = folder / f"diverged-step-{bad_step}.pt"
        with atomic_path(path) as temporary:
            torch.save(dict(data.batch(bad_step)), temporary)
        where = f"in step {bad_step}, whose batch is kept in {path}"
    raise DivergenceError(
        f"training diverged: {', '.join(broken)} not finite, first {where}. "
        f"Last good checkpoint: {last_good or 'none yet'}. "
        "Lower the learning rate, set clip_norm, or look at that batch."
    )
