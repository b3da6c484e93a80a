"""Task: the seam between the engine, which owns the loop, and a method, which owns the losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

Batch = Mapping[str, Any]


class Task(nn.Module, ABC):
    """Owns students, frozen teachers, heads, standardizers and losses; answers one question: a batch, which losses?

    What is trained is every parameter with `requires_grad`; what is saved is the whole state but the frozen parts.
    """

    @abstractmethod
    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalar losses of a batch. `loss` is minimised; the others are logged.

        Args:
            batch: see `eyespot.data.loader`; `batch["step"]` numbers the optimiser step, for draws by counter.
        """

    @property
    @abstractmethod
    def students(self) -> Mapping[str, nn.Module]:
        """What the training makes, by name; an EMA follows these."""

    def prepare(self, batches: Iterable[Batch]) -> None:
        """The one look at the data before training (target statistics). Not called again when a run is resumed."""

    @property
    def preparation_steps(self) -> int:
        """How many batches `prepare` wants."""
        return 0

    @property
    def frozen_parts(self) -> tuple[str, ...]:
        """Names of sub-modules that never change and are not saved (teachers)."""
        return ()

    def no_weight_decay(self) -> set[str]:
        """Names of parameters to keep out of weight decay, beside the one-dimensional ones."""
        return set()

    def trained_state(self) -> dict[str, Tensor]:
        """The state dict without the frozen parts."""
        return {name: value for name, value in self.state_dict().items() if not self._is_frozen(name)}

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """Loads what `trained_state` gave.

        Raises:
            ValueError: tensors are missing or unexpected.
        """
        missing, unexpected = self.load_state_dict(dict(state), strict=False)
        missing = [name for name in missing if not self._is_frozen(name)]
        if missing or unexpected:
            raise ValueError(f"the checkpoint does not fit: missing {missing[:6]}, unexpected {unexpected[:6]}")

    def _is_frozen(self, name: str) -> bool:
        return name.startswith(tuple(f"{part}." for part in self.frozen_parts))
