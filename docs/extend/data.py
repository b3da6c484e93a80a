"""Own data: pictures to learn from, and a labelled set to measure on."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from eyespot import load_encoder
from eyespot.data import DataConfig, PictureLoader
from eyespot.data.sets import ClassificationData, LabelledPictures, TensorPictures
from eyespot.distill.committee import load_committee
from eyespot.distill.features.feature_distillation import FeatureDistillation
from eyespot.engine.config import EngineConfig, OptimConfig
from eyespot.engine.strategy import start_fabric
from eyespot.engine.trainer import Trainer
from eyespot.evaluate import evaluate


class ArrayPictures:
    """A PictureSource: uint8 [N, H, W, 3] in a .npy file, read picture by picture."""

    classes = None  # no labels

    def __init__(self, file: Path) -> None:
        self.file, self.name = file, f"array/{file.name}"
        self._array = np.load(file, mmap_mode="r")

    def __len__(self) -> int:
        return len(self._array)

    def read(self, index: int) -> Image.Image:
        """8-bit RGB. A `PictureError` here is counted and told, and another picture takes the place."""
        return Image.fromarray(self._array[index])

    def picture_name(self, index: int) -> str:
        """For errors and reports."""
        return f"{self.name}[{index}]"

    def label(self, index: int) -> int | None:
        """Its class, if there is one."""
        return None

    def fingerprint(self) -> str:
        """Equal as long as it is the same data, so that another file is not taken for this one on resuming."""
        return hashlib.sha256(f"{self.file.name} {self._array.shape}".encode()).hexdigest()


def colour_classes(count: int, seed: int) -> LabelledPictures:
    """A set to measure on: noise around three colours, which are the classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    base = torch.eye(3)[labels][:, :, None, None]
    images = 0.6 * base + 0.4 * torch.rand(count, 3, 32, 32, generator=generator)
    return LabelledPictures(TensorPictures(images), labels)


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/data")
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "frames.npy", np.random.default_rng(0).integers(0, 256, (16, 48, 64, 3), dtype=np.uint8))
    source = ArrayPictures(folder / "frames.npy")

    student = load_encoder("timm/test_vit?pretrained=false")
    task = FeatureDistillation(
        student,
        load_committee(["timm/test_resnet?pretrained=false"]),
        adapter_width=16,
        student_sizes=[32],
        teacher_sizes=[32],
        statistics_steps=2,
    )
    engine = EngineConfig(accelerator="cpu", precision="32-true", log_every=1)
    trainer = Trainer(
        start_fabric(engine),
        task,
        PictureLoader(DataConfig(sources=[source.name], size=32), batch_size=8, sources=[source]),
        optim=OptimConfig(steps=3, batch_size=8, learning_rate=1e-3),
        engine=engine,
        folder=folder,
    )
    trainer.train()
    data = ClassificationData(colour_classes(30, seed=0), colour_classes(15, seed=1), ["red", "green", "blue"])
    evaluate([student.eval()], ["knn"], {"knn": data}, size=32, options={"knn": {"k": 3}}, timing=False).print()
