"""An own standardizer: how a teacher's features are put on the common scale."""

import sys
from pathlib import Path

import torch
from torch import Tensor

from eyespot import load_encoder
from eyespot.data import DataConfig, PictureLoader
from eyespot.distill.committee import load_committee
from eyespot.distill.features.feature_distillation import FeatureDistillation
from eyespot.distill.features.standardizers import STANDARDIZERS, Standardizer, over_processes
from eyespot.engine.config import EngineConfig, OptimConfig
from eyespot.engine.strategy import start_fabric
from eyespot.engine.trainer import Trainer


class OneScale(Standardizer):
    """Divides all channels by one number, the root mean square of what was observed. The mean stays."""

    scale: Tensor

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.register_buffer("scale", torch.ones(()))  # a buffer, so it is saved with the run
        self._sum = torch.zeros(1, dtype=torch.float64)

    def observe(self, values: Tensor) -> None:
        """[N, C] or [N, C, h, w]: sums only, nothing of the size of the features is kept."""
        self._count += values.numel()
        self._sum = self._sum.to(values.device) + values.double().square().sum()

    def finish(self) -> None:
        """Once, before the first step; pooled over all processes."""
        count, total = over_processes(self._count, self._sum)
        self.scale.copy_((total[0] / count).sqrt())

    def forward(self, values: Tensor) -> Tensor:
        """Into the common scale."""
        return values.float() / self.scale

    def inverse(self, values: Tensor) -> Tensor:
        """And back, for who asks a student in a teacher's own space."""
        return values.float() * self.scale


STANDARDIZERS["one_scale"] = OneScale

if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/standardizer")
    task = FeatureDistillation(
        load_encoder("timm/test_vit?pretrained=false"),
        load_committee(["timm/test_resnet?pretrained=false"]),
        standardizer="one_scale",
        adapter_width=16,
        student_sizes=[32],
        teacher_sizes=[32],
        statistics_steps=2,
    )
    engine = EngineConfig(accelerator="cpu", precision="32-true", log_every=1)
    trainer = Trainer(
        start_fabric(engine),
        task,
        PictureLoader(DataConfig(sources=["toybox:16@64"], size=32), batch_size=8),
        optim=OptimConfig(steps=3, batch_size=8, learning_rate=1e-3),
        engine=engine,
        folder=folder,
    )
    trainer.train()
    print({name: float(value) for name, value in task.standardizers.state_dict().items()})
