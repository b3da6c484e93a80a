"""An own Task: a method of yours. The engine brings the loop, checkpoints, processes, precision and metrics."""

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyespot import Encoder, load_encoder
from eyespot.data import DataConfig, PictureBatch, PictureLoader
from eyespot.encoders import save_encoder
from eyespot.engine.config import EngineConfig, OptimConfig
from eyespot.engine.strategy import start_fabric
from eyespot.engine.task import Task
from eyespot.engine.trainer import Trainer
from eyespot.pictures import as_unit_floats, resize_pictures


class SimilarityTask(Task):
    """The student keeps the teacher's similarities between the pictures of a batch; no heads are needed."""

    def __init__(self, student: Encoder, teacher: Encoder, temperature: float = 0.1) -> None:
        super().__init__()
        self.student, self.teacher, self.temperature = student, teacher.requires_grad_(False), temperature

    def forward(self, batch: PictureBatch) -> dict[str, Tensor]:
        """Named scalars; `loss` is minimised, all are logged."""
        images = as_unit_floats(batch["images"])
        with torch.no_grad():
            theirs = self._similarities(self.teacher.eval(), images)
        ours = self._similarities(self.student, images)
        divergence = F.kl_div(ours.log_softmax(1), theirs.softmax(1), reduction="batchmean")
        return {"loss": divergence, "error": (ours - theirs).abs().mean().detach()}

    def _similarities(self, encoder: Encoder, images: Tensor) -> Tensor:
        """[B, B]: cosines of the summaries, each encoder at the size it takes."""
        summary = encoder(resize_pictures(images, encoder.fitting_size())).summary.float()
        vectors = F.normalize(summary, dim=1)
        return vectors @ vectors.T / self.temperature

    @property
    def students(self) -> Mapping[str, nn.Module]:
        """What the training makes."""
        return {"student": self.student}

    @property
    def frozen_parts(self) -> tuple[str, ...]:
        """Never saved in checkpoints."""
        return ("teacher",)


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/task")
    student = load_encoder("timm/test_vit?pretrained=false&img_size=32")
    task = SimilarityTask(student, load_encoder("timm/test_resnet?pretrained=false"))
    engine = EngineConfig(accelerator="cpu", precision="32-true", log_every=1)
    trainer = Trainer(
        start_fabric(engine),
        task,
        PictureLoader(DataConfig(sources=["toybox:16@64"], size=64), batch_size=8),
        optim=OptimConfig(steps=3, batch_size=8, learning_rate=1e-3),
        engine=engine,
        folder=folder / "stage",  # run the script again: it goes on from the last checkpoint
    )
    made = trainer.train()
    print(save_encoder(made["student"], folder / "student"))
