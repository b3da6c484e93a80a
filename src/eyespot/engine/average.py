"""An exponential moving average of the students, of whole weights or of each process's slice of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eyespot.engine.strategy import local


class MovingAverage:
    """average <- decay * average + (1 - decay) * value after every step; what is no fraction (counters) is copied.

    Args:
        students: whose weights and buffers to follow.
        decay: close to 1.

    Attributes:
        values: the averages, by the names of the students' state dict.
    """

    def __init__(self, students: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values: dict[str, Tensor] = {name: value.clone() for name, value in students.state_dict().items()}

    @torch.no_grad()
    def update(self, students: nn.Module) -> None:
        """Follows the students by one step, without a device sync."""
        averages, values = [], []
        for name, value in students.state_dict().items():
            average = self.values[name]
            if average.is_floating_point():
                averages.append(local(average))
                values.append(local(value))
            else:
                average.copy_(value)
        torch._foreach_lerp_(averages, values, weight=1 - self.decay)
