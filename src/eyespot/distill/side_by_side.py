"""Students side by side: several learn from one pass of the teachers, each as if it were alone (ours)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from eyespot.encoders import Encoder
from eyespot.engine.task import Task
from eyespot.randomness import seed_of, seed_torch


class Learner(nn.Module):
    """A student and what it needs to be taught; its forward pass gives named loss terms.

    Args:
        encoder: the student.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that the student's authors keep out of weight decay."""
        return {f"encoder.{name}" for name in self.encoder.no_weight_decay()}


class SideBySide(Task):
    """A Task whose students share the teachers' work and nothing else.

    Args:
        encoders: what is trained, by name; a single encoder is called "student".
        make: a student -> its learner. All are made from the same random draws, so that what one starts with does not
            depend on who else is there.

    Raises:
        ValueError: no students.
    """

    def __init__(self, encoders: Mapping[str, Encoder], make: Callable[[str, Encoder], Learner]) -> None:
        super().__init__()
        if not encoders:
            raise ValueError(f"{type(self).__name__} needs at least one student")
        self.learners = nn.ModuleDict()
        for name, encoder in encoders.items():
            with torch.random.fork_rng(devices=()):
                self.learners[name] = make(name, encoder)

    @abstractmethod
    def learner(self, name: str) -> Learner:
        """A student's learner."""

    def teach(self, device: torch.device, *given: object) -> dict[str, Tensor]:
        """Every learner's loss terms for the same batch, and their plain sum `loss`.

        With several students their names stand in front, `NAME/loss` is the sum of each, and `loss` that of all.

        Args:
            device: where the students compute.
            given: what every learner is called with.
        """
        losses: dict[str, dict[str, Tensor]] = {}
        draws = torch.initial_seed()
        for name, learner in self.learners.items():
            # Every student draws the same (drop path), as if it were alone.
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else ()):
                losses[name] = learner(*given)
        seed_torch(seed_of(draws, "next"))  # so that the next micro-batch draws anew
        sums = {name: torch.stack(list(terms.values())).sum() for name, terms in losses.items()}
        if len(losses) == 1:
            return {"loss": next(iter(sums.values())), **next(iter(losses.values()))}
        named = {f"{name}/{term}": value for name, terms in losses.items() for term, value in terms.items()}
        return {
            "loss": torch.stack(list(sums.values())).sum(),
            **{f"{name}/loss": value for name, value in sums.items()},
            **named,
        }

    @property
    def students(self) -> Mapping[str, nn.Module]:
        """The students by name."""
        return {name: self.learner(name).encoder for name in self.learners}

    def parts(self) -> Mapping[str, Sequence[nn.Parameter]]:
        """Each student's parameters, with those of its heads: nothing else ties them together."""
        if len(self.learners) == 1:
            return super().parts()
        return {
            name: [weight for weight in learner.parameters() if weight.requires_grad]
            for name, learner in self.learners.items()
        }

    def no_weight_decay(self) -> set[str]:
        """What the students' authors exclude."""
        return {
            f"learners.{name}.{weight}" for name in self.learners for weight in self.learner(name).no_weight_decay()
        }
