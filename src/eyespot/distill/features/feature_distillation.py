"""Feature distillation: a student learns to say what every teacher of a committee says, about the same picture.

All three stages of EUPE and direct multi-teacher distillation are this one Task; only the committee, the student and
the sizes differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from eyespot.data.loading.batch import Batch, PictureBatch
from eyespot.distill.cache import CachedCommittee
from eyespot.distill.committee import Committee
from eyespot.distill.features.learner import FeatureLearner
from eyespot.distill.features.losses import EUPE_LOSS, FeatureLoss
from eyespot.distill.features.standardizers import FeatureStandardizer, finish_all
from eyespot.distill.side_by_side import SideBySide
from eyespot.encoders import Encoder
from eyespot.features import Features
from eyespot.pictures import as_unit_floats
from eyespot.randomness import numpy_generator


class FeatureDistillation(SideBySide):
    """Students -> adapter heads -> losses against standardized teacher features (EUPE section 4.1).

    With several students the teachers look at each picture once for all of them, which is where the time goes. The
    students share nothing else, so each becomes what it would have become alone (ours).

    Args:
        students: what is trained, by name; a single encoder is called "student".
        committee: the frozen teachers; one (the proxy) in EUPE's stages 2 and 3.
        adapter_width: hidden width of the adapter heads.
        student_sizes: sides in pixels, rounded to the student's stride; one per step is drawn from these.
        teacher_sizes: likewise for teachers that take any size, drawn independently (EUPE stage 3). Empty: every
            teacher's own default size.
        standardizer: a key of `eyespot.distill.features.standardizers.STANDARDIZERS`.
        statistics_steps: batches over which the target statistics are estimated (500 in the paper).
        seed: names the draws of sizes, together with the step; the same on every rank.
        loss: what it costs a student to differ from a teacher; EUPE's weights if not said.

    Raises:
        ValueError: no students.
    """

    def __init__(
        self,
        students: Encoder | Mapping[str, Encoder],
        committee: Committee | CachedCommittee,
        *,
        adapter_width: int,
        student_sizes: Sequence[int],
        teacher_sizes: Sequence[int] = (),
        standardizer: str = "channel",
        statistics_steps: int = 500,
        seed: int = 0,
        loss: FeatureLoss = EUPE_LOSS,
    ) -> None:
        widths = {name: (teacher.summary_dim, teacher.patch_dim) for name, teacher in committee.items()}
        encoders = {"student": students} if isinstance(students, Encoder) else students
        super().__init__(encoders, lambda _, encoder: FeatureLearner(encoder, adapter_width, widths, loss))
        self.committee = committee
        self.standardizers = nn.ModuleDict(
            {name: FeatureStandardizer(standardizer, out) for name, out in widths.items()}
        )
        self.student_sizes = tuple(student_sizes)
        self.teacher_sizes = tuple(teacher_sizes)
        self.statistics_steps = statistics_steps
        self.seed = seed

    def forward(self, batch: PictureBatch) -> dict[str, Tensor]:
        """The losses `TEACHER/summary` and `TEACHER/patch` of each teacher, and their plain sum `loss` (EUPE eq. 7).

        With several students their names stand in front, `NAME/loss` is the sum of each, and `loss` that of all.
        """
        student_size, teacher_size = self.sizes(batch["step"])
        seen = self.committee(batch, teacher_size)
        targets = {name: self.standardizers[name](features) for name, features in seen.items()}
        images = as_unit_floats(batch["images"])
        return self.teach(images.device, images, student_size, targets)

    def sizes(self, step: int) -> tuple[int | None, int | None]:
        """(student side, teacher side) in pixels at a step; independent draws, the same on every rank."""
        return self._draw("student", self.student_sizes, step), self._draw("teacher", self.teacher_sizes, step)

    def _draw(self, who: str, sizes: tuple[int, ...], step: int) -> int | None:
        if len(sizes) < 2:
            return sizes[0] if sizes else None
        return int(numpy_generator(self.seed, "size", who, step).choice(sizes))

    def tokens(self, batch: Batch) -> int:
        """The largest number of tokens per picture in this step's teachers and students."""
        student_size, teacher_size = self.sizes(batch["step"])
        looks = [(self.learner(name).encoder, student_size) for name in self.learners]
        looks += [(teacher, teacher_size) for _, teacher in self.committee.items()]
        return max(token_count(encoder, size) for encoder, size in looks)

    @property
    def frozen_parts(self) -> tuple[str, ...]:
        """The committee is rebuilt from its specs, never saved."""
        return ("committee",)

    @property
    def preparation_steps(self) -> int:
        """Batches for the target statistics."""
        return self.statistics_steps

    @torch.no_grad()
    def prepare(self, batches: Iterable[PictureBatch]) -> None:
        """Estimates the target statistics of every teacher (EUPE section 4.1, A.3).

        Raises:
            ValueError: a teacher gives NaN or infinite features; says which.
        """
        for batch in batches:
            targets: dict[str, Features] = self.committee(batch, self.sizes(batch["step"])[1])
            for name, target in targets.items():
                self._standardizer(name).observe(target)
        finish_all((f"teacher {name!r}", self._standardizer(name)) for name in self.standardizers)

    def _standardizer(self, name: str) -> FeatureStandardizer:
        module = self.standardizers[name]
        assert isinstance(module, FeatureStandardizer)
        return module

    def learner(self, name: str) -> FeatureLearner:
        """A student with its adapter heads."""
        module = self.learners[name]
        assert isinstance(module, FeatureLearner)
        return module

    def adapters(self, student: str = "student") -> dict[str, Tensor]:
        """Tensors of a student's heads and of the standardizers by dotted name, to be saved beside it.

        What a teacher carries itself comes along behind `through.TEACHER.`; see `chain`.
        """
        own = self.learner(student).adapters()
        own |= {f"standardizers.{name}": value for name, value in self.standardizers.state_dict().items()}
        for teacher, encoder in self.committee.items():
            own |= {f"through.{teacher}.{name}": value for name, value in encoder.adapters.items()}
        return own


def token_count(encoder: Encoder, size: int | None) -> int:
    """Patches per picture that an encoder computes at a side in pixels."""
    height, width = encoder.fitting_size(size)
    return math.ceil(height / encoder.stride) * math.ceil(width / encoder.stride)
