"""Views of a picture together with its labels: what SAK's second stage trains on (section (c) of our notes).

In this order: the picture is scaled, cropped at random, flipped, its colours distorted, and padded to the size of the
view. Where the notes are silent: pictures are antialiased where they shrink, and labels are taken at the nearest
centre of a pixel, so that both stay in register to half a pixel (both ours).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot.data.labelled.colours import distorted, draw_distortion
from eyespot.data.labelled.points import mirrored_types
from eyespot.data.labelled.samples import MultiTaskSample
from eyespot.data.views.config import PairedViewConfig
from eyespot.data.views.resizing import nearest_pixels, resized_image, resized_label
from eyespot.dense_tasks import IGNORE, DenseTask
from eyespot.randomness import Key, numpy_generator

FILL = (124, 116, 104)
"""ImageNet's mean colour, which surrounds pictures that are smaller than the view: 0 after normalising."""

_CROPS = 11  # one, and ten more if it shows too much of one class


@dataclass(frozen=True)
class _Window:
    """A crop of a scaled picture: its size there, and the rows and columns of the crop."""

    scaled: tuple[int, int]
    rows: slice
    columns: slice

    def nearest(self, label: Tensor) -> Tensor:
        """A label map [..., H, W] of the whole picture at the nearest pixel of each of the crop's, and only there."""
        height, width = label.shape[-2:]
        rows = nearest_pixels(height, self.scaled[0])[self.rows]
        columns = nearest_pixels(width, self.scaled[1])[self.columns]
        return label[..., rows, :][..., columns]


def paired_view(
    sample: MultiTaskSample, tasks: Mapping[str, DenseTask], config: PairedViewConfig, *keys: Key
) -> MultiTaskSample:
    """A picture and its labels under one view: a pure function of the arguments.

    Args:
        sample: at its own size.
        tasks: what its labels are.
        config: what may be drawn.
        keys: what names the draw, e.g. seed, source, picture, number of the view.

    Returns:
        uint8 [3, *size] and labels of that size. What lies outside the picture has `FILL` and no label.
    """
    low, high = config.scale
    uniform = numpy_generator("paired view", *keys).random(2 + 2 * _CROPS)
    scale, flip, corners = low + (high - low) * float(uniform[0]), uniform[1] < config.flip, uniform[2:].reshape(-1, 2)
    window, known = _draw_window(sample, config, scale, corners)
    image = resized_image(sample.image, window.scaled)[:, window.rows, window.columns]
    maps = {
        name: known[name] if name in known else _seen(label, tasks[name], window, scale)
        for name, label in sample.maps.items()
    }
    if flip:
        image = image.flip(-1)
        maps = {name: flipped(label, tasks[name]) for name, label in maps.items()}
    if config.colours:
        image = distorted(image, draw_distortion(*keys))
    return _padded(MultiTaskSample(image, maps), config.size)


def centred(sample: MultiTaskSample, size: tuple[int, int]) -> MultiTaskSample:
    """The view under which models are evaluated: the picture as it is, padded on all sides to `size` (height, width).

    Raises:
        ValueError: it is larger than that.
    """
    (height, width), (old_height, old_width) = size, sample.size
    if old_height > height or old_width > width:
        raise ValueError(
            f"a picture of {old_height}x{old_width} does not fit into {height}x{width} without resizing; evaluate at a "
            f"size of at least {max(old_height, height)}x{max(old_width, width)}, or shrink pictures and labels on "
            f"reading with ?height={height}&width={width}"
        )
    return _padded(sample, size)


def flipped(label: Tensor, task: DenseTask) -> Tensor:
    """A label map of the mirrored picture: normals point the other way in x, left key points become right ones."""
    mirrored = label.flip(-1)
    if task.kind == "normals":
        mirrored[0] *= -1  # `flip` has copied
    if task.kind == "keypoints" and (order := mirrored_types(task.names)) is not None:
        mirrored = mirrored[order]
    return mirrored


def _draw_window(
    sample: MultiTaskSample, config: PairedViewConfig, scale: float, corners: np.ndarray
) -> tuple[_Window, dict[str, Tensor]]:
    """The first of the drawn crops that has no more of one class than allowed, else the last one.

    With it come the maps that were looked at to choose it, as they are in the crop, so that they are not cut again.
    """
    height, width = (max(1, int(side * scale)) for side in sample.size)
    crop = min(height, config.size[0]), min(width, config.size[1])
    spare = height - crop[0], width - crop[1]
    classes = sample.maps.get("segmentation") if config.most_of_one_class < 1 and any(spare) else None
    known: dict[str, Tensor] = {}
    for down, right in corners.tolist():
        top, left = int(down * (spare[0] + 1)), int(right * (spare[1] + 1))
        window = _Window((height, width), slice(top, top + crop[0]), slice(left, left + crop[1]))
        if classes is None:
            break
        known["segmentation"] = window.nearest(classes)
        if largest_share(known["segmentation"]) <= config.most_of_one_class:
            break
    return window, known


def largest_share(classes: Tensor) -> float:
    """How much of the labelled pixels of a class map the most frequent class has; 1 if there are none."""
    counts = classes[classes != IGNORE].long().bincount()
    return float(counts.max() / counts.sum()) if len(counts) else 1.0


def _seen(label: Tensor, task: DenseTask, window: _Window, scale: float) -> Tensor:
    """A label in the window of the scaled picture."""
    if task.kind == "keypoints" and scale < 1:
        return resized_label(label, task.kind, window.scaled)[..., window.rows, window.columns]
    found = window.nearest(label)
    return found / scale if task.kind == "depth" else found


def _padded(sample: MultiTaskSample, size: tuple[int, int]) -> MultiTaskSample:
    """The picture in the middle of a map of `size`, with nothing around it."""
    (height, width), (old_height, old_width) = size, sample.size
    top, left = (height - old_height) // 2, (width - old_width) // 2
    image = torch.tensor(FILL, dtype=torch.uint8)[:, None, None].repeat(1, height, width)
    image[:, top : top + old_height, left : left + old_width] = sample.image
    margins = (left, width - old_width - left, top, height - old_height - top)
    maps = {}
    for name, label in sample.maps.items():
        fill = IGNORE if label.dtype == torch.uint8 else 0  # classes of any kind are bytes, the others floats
        maps[name] = F.pad(label, margins, value=fill)
    if "parts" in maps:
        maps["parts"] = parts_or_nothing(maps["parts"])
    return MultiTaskSample(image, maps)


def parts_or_nothing(parts: Tensor) -> Tensor:
    """A map of human parts, which counts for nothing where no person is seen at all (as in SAK's code)."""
    seen = ((parts != 0) & (parts != IGNORE)).any()
    return parts if seen else torch.full_like(parts, IGNORE)
