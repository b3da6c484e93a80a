"""Task: the seam between the engine, which owns the loop, and a method, which owns the losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from eyespot.encoders import Encoder


class Task(nn.Module, ABC):
    """Owns students, frozen teachers, heads, standardizers and losses; answers one question: a batch, which losses?

    What is trained is every parameter with `requires_grad`; what is saved is the whole state but the frozen parts.

    Attributes:
        on_device: names of the batch entries (tensors, or nested mappings of tensors) that the engine moves to the
            device before `forward` and `prepare`. All others stay where the loader made them, so that looking up a row
            by `source`, `index` and `view` never waits for the device.
    """

    on_device: tuple[str, ...] = ("images", "labels", "maps")

    @abstractmethod
    def forward(self, batch: Any) -> dict[str, Tensor]:
        """Named scalar losses of a batch. `loss` is minimised; the others are logged.

        Args:
            batch: what the task's loader makes, as `eyespot.data.loading.batch` lists it: a `PictureBatch`, a
                `MapBatch`, or a mapping of one's own with `images`. `batch["step"]` numbers the optimiser step, for
                draws by counter.
        """

    @property
    @abstractmethod
    def students(self) -> Mapping[str, nn.Module]:
        """What the training makes, by name; an EMA follows these."""

    def before_split(self, batch: Any) -> Any:
        """Called once per step, before micro-batches are made: adds what each needs to know of the whole batch.

        Args:
            batch: of the step and this process, entries of `on_device` already there. What is added per picture is cut
                with the pictures, see `eyespot.engine.trainer.split_batch`.
        """
        return batch

    def prepare(self, batches: Iterable[Any]) -> None:
        """The one pass over the data before training (target statistics). Not called again when a run is resumed."""

    @property
    def preparation_steps(self) -> int:
        """How many batches `prepare` wants."""
        return 0

    @property
    def frozen_parts(self) -> tuple[str, ...]:
        """Names of sub-modules that never change and are not saved (teachers)."""
        return ()

    @property
    def teachers(self) -> Mapping[str, nn.Module]:
        """The frozen networks that compute something in a step, by name; by default every encoder in a frozen part."""
        frozen = [(part, self.get_submodule(part)) for part in self.frozen_parts]
        return {
            f"{part}.{name}" if name else part: module
            for part, root in frozen
            for name, module in root.named_modules()
            if isinstance(module, Encoder)
        }

    def parts(self) -> Mapping[str, Sequence[nn.Parameter]]:
        """Parameters that are trained independently of each other, by name: with several students, one part for each.

        The gradient is clipped part by part. Its norm is logged as `grad_norm` for the part "", as `NAME/grad_norm` for
        others. By default one part "" with everything that trains.
        """
        return {"": [parameter for parameter in self.parameters() if parameter.requires_grad]}

    def tokens(self, batch: Any) -> int:
        """Largest number of tokens (patches) per picture that any network computes in this step, for `max_tokens`.

        Must be the same in every process. 0, the default: not known; then `max_tokens` cannot be used.

        Args:
            batch: of the step, as `forward` gets it.
        """
        return 0

    def no_weight_decay(self) -> set[str]:
        """Names of parameters to keep out of weight decay, beside the one-dimensional ones."""
        return set()

    def trained_state(self) -> dict[str, Tensor]:
        """The state dict without the frozen parts."""
        return {name: value for name, value in self.state_dict().items() if not self._is_frozen(name)}

    def _is_frozen(self, name: str) -> bool:
        return name.startswith(tuple(f"{part}." for part in self.frozen_parts))
