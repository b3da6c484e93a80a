"""The contact sheet: many scenes at a glance, and for some of them every map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from eyespot.data.toybox.render import render
from eyespot.data.toybox.truth import SEMANTIC_CLASSES, Scenes
from eyespot.files import atomic_path
from eyespot.outputs import MARK, check_output_file

_COLUMNS = 8
_GAP = 4
_PANELS = ["picture", "depth", "normals", "semantic", "instances", "boundaries", "key points, camera 0", "camera 1"]

Picture = NDArray[np.uint8]


def contact_sheet(path: str | Path, seeds: Sequence[int] = range(24), size: int = 128, detailed: int = 4) -> None:
    """Writes a PNG with the scenes of `seeds`, eight in a row, and below it all maps of the first few.

    Args:
        path: Where the PNG goes.
        seeds: Which scenes.
        size: Side of each panel in pixels.
        detailed: How many scenes are shown with depth, normals, masks and key points in both cameras.

    Raises:
        ValueError: If `seeds` is empty or `size` is below 8.
        FileExistsError, IsADirectoryError: `path` is not ours to write over.
    """
    check_output_file(path)
    seeds = list(seeds)
    pictures = [_to_bytes(image) for image in render(seeds, size).images]
    few = seeds[:detailed]
    panels = _panels(render(few, size), render(few, size, camera=1)) if few else []

    font = ImageFont.load_default(size=max(9, size // 10))
    line = max(12, size // 8) + _GAP
    rows = -(-len(pictures) // _COLUMNS)
    cell = size + _GAP
    sheet = Image.new("RGB", (_COLUMNS * cell + _GAP, rows * cell + _GAP + bool(few) * line + len(few) * cell), "white")
    for index, picture in enumerate(pictures):
        sheet.paste(Image.fromarray(picture), (_GAP + index % _COLUMNS * cell, _GAP + index // _COLUMNS * cell))
    top = _GAP + rows * cell
    if few:
        draw = ImageDraw.Draw(sheet)
        for column, title in enumerate(_PANELS):
            draw.text((_GAP + column * cell, top), title, fill="black", font=font)
    for row, scene in enumerate(panels):
        for column, panel in enumerate(scene):
            sheet.paste(panel, (_GAP + column * cell, top + line + row * cell))
    mark = PngInfo()
    mark.add_text("Software", MARK)
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG", pnginfo=mark)


def _panels(first: Scenes, second: Scenes) -> list[list[Image.Image]]:
    """All panels of each scene, in the order of `_PANELS`."""
    rows = []
    for index in range(len(first)):
        maps = [
            _to_bytes(first.images[index]),
            _depth_colours(first.depth[index]),
            _to_bytes(first.normals[index] * torch.tensor([0.5, -0.5, -0.5])[:, None, None] + 0.5),
            _label_colours(first.semantic[index], len(SEMANTIC_CLASSES)),
            _label_colours(first.instances[index], 6),
            _to_bytes(first.boundaries[index].float().expand(3, -1, -1)),
        ]
        points = [_keypoint_overlay(scenes, index) for scenes in (first, second)]
        rows.append([*(Image.fromarray(panel) for panel in maps), *points])
    return rows


def _to_bytes(image: Tensor) -> Picture:
    """[3, S, S] in [0, 1] to [S, S, 3] bytes."""
    return (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()


def _depth_colours(depth: Tensor) -> Picture:
    """Near is bright, far is dark; the scale is that of inverse depth."""
    from matplotlib import colormaps

    near = 1 / depth
    scaled = (near - near.min()) / (near.max() - near.min())
    return (colormaps["magma"](scaled.numpy())[..., :3] * 255).astype(np.uint8)


def _label_colours(labels: Tensor, count: int) -> Picture:
    from matplotlib import colormaps

    table = (colormaps["tab20"](np.arange(count))[:, :3] * 255).astype(np.uint8)
    return table[labels.numpy()]


def _keypoint_overlay(scenes: Scenes, index: int) -> Image.Image:
    """The picture with every key point in a colour of its own: a disc where it is visible, a ring where it is not."""
    from matplotlib import colormaps

    image = Image.fromarray(_to_bytes(scenes.images[index]))
    draw = ImageDraw.Draw(image)
    radius = max(1.5, image.width / 50)
    points = zip(scenes.keypoints[index].tolist(), scenes.keypoints_visible[index].tolist(), strict=True)
    for number, ((x, y), visible) in enumerate(points):
        colour = tuple(int(255 * part) for part in colormaps["hsv"](number / scenes.keypoints.shape[1])[:3])
        box = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(box, fill=colour if visible else None, outline="black" if visible else colour)
    return image
