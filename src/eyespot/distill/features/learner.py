"""Learner: one student with its adapter heads. Several of them can learn from the same pass of the teachers."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from eyespot.distill.features.heads import TeacherAdapter
from eyespot.distill.features.losses import FeatureLoss
from eyespot.distill.side_by_side import Learner
from eyespot.encoders import Encoder
from eyespot.features import Features
from eyespot.pictures import resize_pictures


class FeatureLearner(Learner):
    """A student and its heads into every teacher's space (EUPE section 4.1).

    Args:
        encoder: the student.
        adapter_width: hidden width of the heads.
        teacher_dims: (summary, patch) widths of each teacher.
        loss: what it costs to differ from a teacher.
    """

    def __init__(
        self,
        encoder: Encoder,
        adapter_width: int,
        teacher_dims: Mapping[str, tuple[int, int]],
        loss: FeatureLoss,
    ) -> None:
        super().__init__(encoder)
        self.loss = loss
        dims = (encoder.summary_dim, encoder.patch_dim)
        self.heads = nn.ModuleDict(
            {name: TeacherAdapter(dims, adapter_width, out) for name, out in teacher_dims.items()}
        )

    def forward(self, images: Tensor, size: int | None, targets: Mapping[str, Features]) -> dict[str, Tensor]:
        """The losses `TEACHER/summary` and `TEACHER/patch` of each teacher.

        Args:
            images: [B, 3, S, S] in [0, 1].
            size: side in pixels at which the student looks, rounded to its stride; None is its default.
            targets: standardized features of each teacher.
        """
        pictures = resize_pictures(images, self.encoder.fitting_size(size))
        features = self.encoder(pictures)
        losses: dict[str, Tensor] = {}
        for name, target in targets.items():
            prediction = self.heads[name](features)
            losses[f"{name}/summary"], losses[f"{name}/patch"] = self.loss(prediction, target)
        return losses

    def adapters(self) -> dict[str, Tensor]:
        """Tensors of the heads by dotted name: `heads.TEACHER.summary.0.weight`."""
        return {f"heads.{name}": value for name, value in self.heads.state_dict().items()}
