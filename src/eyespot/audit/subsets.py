"""Students of every part of a committee that tells something about its members, side by side."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from eyespot.data.loading.batch import PictureBatch
from eyespot.distill.committee import Committee
from eyespot.distill.features.feature_distillation import token_count
from eyespot.distill.features.learner import FeatureLearner
from eyespot.distill.features.losses import EUPE_LOSS
from eyespot.distill.features.standardizers import FeatureStandardizer
from eyespot.distill.side_by_side import SideBySide
from eyespot.encoders import Encoder
from eyespot.features import Features
from eyespot.pictures import as_unit_floats

FULL = "all"

Subset = tuple[str, ...]


def subsets_of(teachers: Subset) -> dict[str, Subset]:
    """Parts of a committee by name: all teachers, all but each one, and each one alone.

    With two teachers "all but one" is "one alone", which then is there once.
    """
    parts = {FULL: teachers}
    if len(teachers) > 2:
        parts |= {f"without-{left_out}": others(teachers, left_out) for left_out in teachers}
    return parts | {f"only-{name}": (name,) for name in teachers}


def others(teachers: Subset, left_out: str) -> Subset:
    """A committee without one teacher."""
    return tuple(name for name in teachers if name != left_out)


class SubsetLearner(FeatureLearner):
    """A student with heads into the spaces of some teachers.

    A head begins with the same weights whoever else teaches.

    Args:
        encoder: the student.
        adapter_width: hidden width of the heads.
        teacher_dims: (summary, patch) widths of all teachers.
        taught_by: the teachers that it learns from.
    """

    def __init__(
        self, encoder: Encoder, adapter_width: int, teacher_dims: Mapping[str, tuple[int, int]], taught_by: Subset
    ) -> None:
        super().__init__(encoder, adapter_width, teacher_dims, EUPE_LOSS)
        for name in teacher_dims:
            if name not in taught_by:
                del self.heads[name]

    @property
    def taught_by(self) -> Subset:
        """The teachers that it learns from."""
        return tuple(self.heads)

    def forward(self, images: Tensor, size: int | None, targets: Mapping[str, Features]) -> dict[str, Tensor]:
        """See `FeatureLearner.forward`; targets of other teachers are passed over."""
        return super().forward(images, size, {name: targets[name] for name in self.heads})


class SubsetDistillation(SideBySide):
    """Feature distillation of students that learn from different parts of one committee, from one pass of it.

    Args:
        students: by name.
        taught_by: by the same names, the teachers that each learns from.
        committee: the frozen teachers.
        standardizers: by teacher, finished.
        adapter_width: hidden width of the adapter heads.
        size: side in pixels of the students' pictures.
        teacher_size: the same for teachers that take any size.
    """

    def __init__(
        self,
        students: Mapping[str, Encoder],
        taught_by: Mapping[str, Subset],
        committee: Committee,
        standardizers: Mapping[str, FeatureStandardizer],
        adapter_width: int,
        size: int,
        teacher_size: int | None = None,
    ) -> None:
        widths = {name: (teacher.summary_dim, teacher.patch_dim) for name, teacher in committee.items()}
        super().__init__(students, lambda name, encoder: SubsetLearner(encoder, adapter_width, widths, taught_by[name]))
        self.committee = committee
        self.standardizers = nn.ModuleDict(standardizers)
        self.size, self.teacher_size = size, teacher_size

    def forward(self, batch: PictureBatch) -> dict[str, Tensor]:
        """See `SideBySide.teach`."""
        seen = self.committee(batch, self.teacher_size)
        targets = {name: self.standardizers[name](features) for name, features in seen.items()}
        images = as_unit_floats(batch["images"])
        return self.teach(images.device, images, self.size, targets)

    def learner(self, name: str) -> SubsetLearner:
        """A student with its adapter heads."""
        module = self.learners[name]
        assert isinstance(module, SubsetLearner)
        return module

    def tokens(self, batch: PictureBatch) -> int:
        """See `Task.tokens`."""
        students = [token_count(student, self.size) for student in self.students.values()]  # type: ignore[arg-type]
        return max(*students, *(token_count(teacher, self.teacher_size) for _, teacher in self.committee.items()))

    @property
    def frozen_parts(self) -> tuple[str, ...]:
        """The committee is never saved."""
        return ("committee",)
