"""Feature distillation: one student learns to say what every teacher of a committee says, about the same picture.

All three stages of EUPE and direct multi-teacher distillation are this one Task; only the committee, the student and
the sizes differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from eyespot.data.randomness import numpy_generator
from eyespot.distill.cache import CachedCommittee
from eyespot.distill.committee import Committee, as_unit_floats, resize_pictures
from eyespot.distill.heads import TeacherAdapter
from eyespot.distill.losses import distillation_losses
from eyespot.distill.standardizers import FeatureStandardizer
from eyespot.encoders import Encoder
from eyespot.engine.task import Batch, Task
from eyespot.features import Features


class FeatureDistillation(Task):
    """Student -> adapter heads -> losses against standardized teacher features (EUPE section 4.1).

    Args:
        student: the encoder that is trained.
        committee: the frozen teachers; one (the proxy) in EUPE's stages 2 and 3.
        adapter_width: hidden width of the adapter heads.
        student_sizes: sides in pixels, rounded to the student's stride; one per step is drawn from these.
        teacher_sizes: likewise for teachers that take any size, drawn independently (EUPE stage 3). Empty: every
            teacher's own default size.
        standardizer: a key of `eyespot.distill.standardizers.STANDARDIZERS`.
        statistics_steps: batches over which the target statistics are estimated (500 in the paper).
        seed: names the draws of sizes, together with the step; the same on every rank.
    """

    def __init__(
        self,
        student: Encoder,
        committee: Committee | CachedCommittee,
        *,
        adapter_width: int,
        student_sizes: Sequence[int],
        teacher_sizes: Sequence[int] = (),
        standardizer: str = "channel",
        statistics_steps: int = 500,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.student = student
        self.committee = committee
        dims = (student.summary_dim, student.patch_dim)
        widths = {name: (teacher.summary_dim, teacher.patch_dim) for name, teacher in committee.items()}
        self.heads = nn.ModuleDict({name: TeacherAdapter(dims, adapter_width, out) for name, out in widths.items()})
        self.standardizers = nn.ModuleDict(
            {name: FeatureStandardizer(standardizer, out) for name, out in widths.items()}
        )
        self.student_sizes = tuple(student_sizes)
        self.teacher_sizes = tuple(teacher_sizes)
        self.statistics_steps = statistics_steps
        self.seed = seed

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses `TEACHER/summary` and `TEACHER/patch` of each teacher, and their plain sum `loss` (EUPE eq. 7)."""
        student_size, teacher_size = self.sizes(batch["step"])
        targets = self.committee(batch, teacher_size)
        images = as_unit_floats(batch["images"])
        features = self.student(resize_pictures(images, self.student.fitting_size(student_size)))
        losses: dict[str, Tensor] = {}
        for name, target in targets.items():
            prediction = self.heads[name](features)
            standardized = self.standardizers[name](target)
            losses[f"{name}/summary"], losses[f"{name}/patch"] = distillation_losses(prediction, standardized)
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    def sizes(self, step: int) -> tuple[int | None, int | None]:
        """(student side, teacher side) in pixels at a step; independent draws, the same on every rank."""
        return self._draw("student", self.student_sizes, step), self._draw("teacher", self.teacher_sizes, step)

    def _draw(self, who: str, sizes: tuple[int, ...], step: int) -> int | None:
        if len(sizes) < 2:
            return sizes[0] if sizes else None
        return int(numpy_generator(self.seed, "size", who, step).choice(sizes))

    @property
    def students(self) -> Mapping[str, nn.Module]:
        """The one student."""
        return {"student": self.student}

    @property
    def frozen_parts(self) -> tuple[str, ...]:
        """The committee is rebuilt from its specs, never saved."""
        return ("committee",)

    @property
    def preparation_steps(self) -> int:
        """Batches for the target statistics."""
        return self.statistics_steps

    @torch.no_grad()
    def prepare(self, batches: Iterable[Batch]) -> None:
        """Estimates the target statistics of every teacher (EUPE section 4.1, A.3).

        Raises:
            ValueError: a teacher gives NaN or infinite features; says which.
        """
        for batch in batches:
            targets: dict[str, Features] = self.committee(batch, self.sizes(batch["step"])[1])
            for name, target in targets.items():
                self._standardizer(name).observe(target)
        for name in self.standardizers:
            try:
                self._standardizer(name).finish()
            except ValueError as error:
                raise ValueError(f"teacher {name!r}: {error}") from error

    def _standardizer(self, name: str) -> FeatureStandardizer:
        module = self.standardizers[name]
        assert isinstance(module, FeatureStandardizer)
        return module

    def no_weight_decay(self) -> set[str]:
        """What the student's authors exclude."""
        names = getattr(self.student, "no_weight_decay", set)
        return {f"student.{name}" for name in names()}

    def adapters(self) -> dict[str, Tensor]:
        """Tensors of heads and standardizers by dotted name, to be saved beside the student.

        What a teacher carries itself comes along behind `through.TEACHER.`; see `chain`.
        """
        own = {
            name: value for name, value in self.state_dict().items() if name.startswith(("heads.", "standardizers."))
        }
        for teacher, encoder in self.committee.items():
            own |= {f"through.{teacher}.{name}": value for name, value in encoder.adapters.items()}
        return own
