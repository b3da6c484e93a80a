"""Callbacks: who watches a training without taking part in it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

Students = Mapping[str, nn.Module]


class Callback:
    """Told how a training goes, in every process. This one does nothing; others override what they want to hear.

    A callback may look at the students but change nothing: neither weights, nor modes, nor global random state. It is
    called in the loop, so whatever takes time belongs into the background. What it raises ends the training.

    Attributes:
        every: steps between two calls of `after_step`; 0 for none. Where the students are cut into slices (fsdp), they
            are put together for each call, which all processes have to wait for.
    """

    every: int = 1

    def before_training(self, step: int) -> None:
        """The training begins, or goes on, with `step` steps done."""

    def after_step(self, step: int, students: Students) -> None:
        """`step` steps are done.

        Args:
            step: how many, a multiple of `every`; a checkpoint that is due at this step has been written.
            students: what the training would end with now, by name: the moving averages if there is an EMA. They
                change in the next step, so who wants to keep them makes a copy. With fsdp they are on the CPU, and only
                those of the first process hold numbers.
        """

    def after_training(self, step: int, students: Students, completed: bool) -> None:
        """The training is over.

        Args:
            step: how many steps are done.
            students: what it ends with, as for `after_step`; with fsdp and not `completed`, without numbers.
            completed: False if an error or the user ended it; whoever is called should then be brief.
        """
