import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot.encoders.base import Encoder
from eyespot.features import Features


class ColourEncoder(Encoder):
    """Sees mean colours: a 4x4 grid of them as summary, one per stride x stride cell as patches."""

    license = None

    def __init__(self, name: str = "colours", stride: int = 8, native_size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.name = name
        self.stride = stride
        self.native_size = native_size
        self.default_size = native_size or (32, 32)
        self.summary_dim, self.patch_dim = 48, 3
        self.pictures_seen = 0
        self.sizes_seen: set[tuple[int, int]] = set()

    def _encode(self, images: Tensor) -> Features:
        self.pictures_seen += len(images)
        self.sizes_seen.add((images.shape[2], images.shape[3]))
        return Features(F.adaptive_avg_pool2d(images, 4).flatten(1), F.avg_pool2d(images, self.stride))


@pytest.fixture
def colours() -> ColourEncoder:
    return ColourEncoder()


@pytest.fixture
def colour_encoder() -> type[ColourEncoder]:
    return ColourEncoder


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
