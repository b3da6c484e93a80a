"""An own loss: what it costs a student to differ from a teacher."""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from eyespot import load_encoder
from eyespot.data import DataConfig, PictureLoader
from eyespot.distill.committee import load_committee
from eyespot.distill.features.feature_distillation import FeatureDistillation
from eyespot.distill.features.losses import FeatureLoss
from eyespot.engine.config import EngineConfig, OptimConfig
from eyespot.engine.strategy import start_fabric
from eyespot.engine.trainer import Trainer


@dataclass(frozen=True)
class SharpenedLoss(FeatureLoss):
    """EUPE's summaries; of the patches, the squared error of those where the teacher says most."""

    power: float = 2.0

    def patches(self, prediction: Tensor, target: Tensor) -> Tensor:
        """[B, D, h, w] each, on one grid, standardized."""
        weight = target.norm(dim=1, keepdim=True) ** self.power
        error = F.mse_loss(prediction.float(), target.float(), reduction="none")
        return (weight * error).mean() / weight.mean()


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/loss")
    task = FeatureDistillation(
        load_encoder("timm/test_vit?pretrained=false"),
        load_committee(["timm/test_resnet?pretrained=false"]),
        loss=SharpenedLoss(summary_cosine=0.5),
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
    print((folder / "metrics.jsonl").read_text().splitlines()[-1])
