"""The toybox as a source of pictures, interchangeable with a folder."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eyespot.data.toybox.render import render
from eyespot.data.toybox.scenes import SHAPES, sample_scenes
from eyespot.data.toybox.spec import FIRST_TRAINING, SCENES_PER_SOURCE_SEED, SIZE, SOURCE_COUNT, refuse_small_scenes

# Goes up whenever the same seed would show another picture.
TOYBOX_VERSION = 1

_CHUNK = 64


class ToyboxSource:
    """`count` rendered scenes (camera 0), labelled with the main object's shape.

    Picture `index` shows the scene with seed `seed * 2**32 + index`, so sources with different seeds share no scene:
    use one for training and another for validation. Pictures are rendered 64 at a time when first asked for and kept in
    memory (3 * size * size bytes each).

    Args:
        count: How many scenes, 1 to 2**32.
        size: Side of the pictures in pixels, at least 8.
        seed: Which family of scenes.

    Raises:
        ValueError: If `count` or `size` is out of range.
    """

    classes: list[str] | None = SHAPES

    def __init__(self, count: int = SOURCE_COUNT, size: int = SIZE, seed: int = 0) -> None:
        if not 1 <= count <= SCENES_PER_SOURCE_SEED:
            raise ValueError(f"count is {count}: a toybox holds between 1 and 2**32 scenes")
        refuse_small_scenes(size, f"size is {size}")
        self.count, self.size, self.seed = count, size, seed
        self.name = f"toybox:{count}@{size}" + (f"#{seed}" if seed else "")
        self._pictures: dict[int, NDArray[np.uint8]] = {}
        self._labels: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return self.count

    def scene_seed(self, index: int) -> int:
        """The seed that `render` takes to show picture `index` with its ground truth.

        Raises:
            IndexError: If `index` is not in [0, count).
        """
        if not 0 <= index < self.count:
            raise IndexError(f"picture {index} of a toybox of {self.count}")
        return FIRST_TRAINING + self.seed * SCENES_PER_SOURCE_SEED + index

    def read(self, index: int) -> Image.Image:
        """Picture `index`, RGB."""
        self.scene_seed(index)
        chunk = index // _CHUNK
        if chunk not in self._pictures:
            images = render(self._chunk_seeds(chunk), self.size).images
            self._pictures[chunk] = (images * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
        return Image.fromarray(self._pictures[chunk][index % _CHUNK])

    def picture_name(self, index: int) -> str:
        """A name to report picture `index` by."""
        return f"toybox scene {self.scene_seed(index)}"

    def label(self, index: int) -> int:
        """The main object's shape, an index in `classes`; the picture need not be rendered for it."""
        self.scene_seed(index)
        chunk = index // _CHUNK
        if chunk not in self._labels:
            self._labels[chunk] = sample_scenes(self._chunk_seeds(chunk)).shape[:, 0].tolist()
        return self._labels[chunk][index % _CHUNK]

    def fingerprint(self) -> str:
        """A hash of all that decides the pictures."""
        text = f"toybox {TOYBOX_VERSION} {self.count} {self.size} {self.seed}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def _chunk_seeds(self, chunk: int) -> list[int]:
        return [self.scene_seed(index) for index in range(chunk * _CHUNK, min(self.count, (chunk + 1) * _CHUNK))]
