"""Pictures for the loops that bring no loader of their own: a batch in memory, or JPEG files by torchvision."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from job import Job
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

CROP = (0.32, 1.0)
"""Smallest and largest share of the picture that a crop covers, for every loop here; half of them are mirrored."""
COLOUR: dict[str, Any] = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1}
JITTER, BLUR, SOLARIZE = 0.8, 0.55, 0.1
"""Probabilities of a change of colours by `COLOUR`, a blur by `BLUR_SIGMA`, and a solarization."""
BLUR_SIGMA = (0.1, 2.0)
BLUR_KERNEL = 9


class Files(Dataset):
    """Each file as an augmented uint8 picture [3, size, size]; the resampling is ours, bicubic with antialiasing."""

    def __init__(self, folder: str, size: int, views: str) -> None:
        self.files = picture_files(Path(folder))
        crop = v2.RandomResizedCrop(size, scale=CROP, interpolation=v2.InterpolationMode.BICUBIC)
        colour = [
            v2.RandomApply([v2.ColorJitter(**COLOUR)], JITTER),
            v2.RandomApply([v2.GaussianBlur(BLUR_KERNEL, BLUR_SIGMA)], BLUR),
            v2.RandomSolarize(128, SOLARIZE),
        ]
        chosen = colour if views == "colour" else []
        self.view = v2.Compose([crop, v2.RandomHorizontalFlip(), v2.PILToTensor(), *chosen])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.files[index]) as picture:
            view: Tensor = self.view(picture.convert("RGB"))
        return view


def picture_files(folder: Path) -> list[Path]:
    """All JPEG files below a folder, in a fixed order."""
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg"))


def batches(job: Job) -> Iterator[Tensor]:
    """Pictures uint8 [B, 3, size, size], one batch per step."""
    if not job.pictures:
        yield from itertools.repeat(batch_in_memory(job), job.steps)
        return
    order = torch.Generator().manual_seed(job.seed)
    torch.manual_seed(job.seed)
    loader: DataLoader[Any] = DataLoader(
        Files(job.pictures, job.size, job.views),
        batch_size=job.batch_size,
        shuffle=True,
        drop_last=True,
        generator=order,
    )
    epochs = itertools.repeat(loader)
    yield from itertools.islice(itertools.chain.from_iterable(epochs), job.steps)


def batch_in_memory(job: Job) -> Tensor:
    """One batch of noise, uint8 [B, 3, size, size]."""
    shape = (job.batch_size, 3, job.size, job.size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(job.seed))


def normalized(images: Tensor, statistics: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    """uint8 pictures as the models want them."""
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in statistics)
    return (images.float() / 255 - mean) / std
