"""Sheets of PCA pictures: the same pictures as several encoders see them, side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure as Drawing
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from eyespot.data.sources.decode import decode_picture
from eyespot.encoders import Encoder
from eyespot.encoders.frozen import load_frozen
from eyespot.files import atomic_path
from eyespot.outputs import MARK, check_output_file
from eyespot.report.exhibits.figures import as_bytes
from eyespot.report.exhibits.pca import pca_pictures


def pca_columns(
    encoders: Mapping[str, Encoder],
    images: Tensor,
    sizes: Mapping[str, int | tuple[int, int]] | None = None,
    align_to: str | None = None,
) -> dict[str, Tensor]:
    """The pictures and what each encoder sees in them, ready for a sheet or a `PictureGrid`.

    Args:
        encoders: label -> encoder. They compute in evaluation mode, on their own device.
        images: [B, 3, H, W] in [0, 1].
        sizes: label -> input size for that encoder: (height, width), or the shorter side, rounded to its stride.
            Without an entry: the pictures' own size, rounded. An encoder with a native size gets that in both cases,
            unless (height, width) is given.
        align_to: label of the encoder whose colours the others follow, see `pca_pictures`.

    Returns:
        "picture" and every label -> uint8 [B, 3, H, W].

    Raises:
        ValueError: an unknown label in `sizes` or `align_to`, or an encoder that cannot take its size.
    """
    for label in [*(sizes or {}), *([align_to] if align_to is not None else [])]:
        if label not in encoders:
            raise ValueError(f"no encoder is called {label!r}; there are {', '.join(encoders)}")
    height, width = images.shape[2:]
    patches = {label: patch_map(encoder, images, (sizes or {}).get(label)) for label, encoder in encoders.items()}
    columns = {"picture": as_bytes(images).cpu()}
    for label, seen in patches.items():
        reference = patches[align_to] if align_to not in (None, label) else None
        columns[label] = pca_pictures(seen, (height, width), align_to=reference)
    return columns


def visualize(
    encoders: Mapping[str, Encoder],
    images: Tensor,
    path: str | Path,
    sizes: Mapping[str, int | tuple[int, int]] | None = None,
    align_to: str | None = None,
) -> None:
    """Writes a PNG sheet: one row per picture, the picture first, then one column of PCA colours per encoder.

    Args:
        encoders: label -> encoder.
        images: [B, 3, H, W] in [0, 1].
        path: the PNG file to write.
        sizes: see `pca_columns`.
        align_to: see `pca_columns`.

    Raises:
        ValueError: `path` does not end in .png, or see `pca_columns`.
        FileExistsError, IsADirectoryError: `path` is not ours to write over.
    """
    path = _checked_png(path)
    columns = pca_columns(encoders, images, sizes, align_to)
    with atomic_path(path) as temporary, matplotlib.rc_context({"text.parse_math": False, "font.size": 9}):
        _sheet(columns).savefig(temporary, format="png", dpi=150, metadata={"Software": MARK})


def _checked_png(path: str | Path) -> Path:
    path = Path(path)
    check_output_file(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"the sheet is a PNG file; {path.name} should end in .png")
    return path


def visualize_files(
    models: Sequence[str | Encoder],
    pictures: Sequence[str | Path],
    output: str | Path,
    size: int = 448,
    align_to: str | None = None,
) -> Path:
    """Writes a sheet of PCA pictures for picture files: what `eyespot visualize MODEL IMAGE ...` does.

    All pictures are cropped about their centre to the shape of the first, so that one PCA can span them.

    Args:
        models: specs, see `load_encoder`, or encoders; a column each, labelled by spec or name.
        pictures: picture files; a row each.
        output: the PNG file to write.
        size: shorter side in pixels at which encoders see the pictures, rounded to their stride. Encoders with a
            native size get that.
        align_to: label of the model whose colours the others follow, see `pca_pictures`.

    Returns:
        `output`.

    Raises:
        ValueError: no model, no picture, or see `visualize`.
        PictureError: a file cannot be read as a picture.
        FileExistsError, IsADirectoryError: `output` is not ours to write over.
    """
    if not models or not pictures:
        raise ValueError("name at least one model and one picture file")
    _checked_png(output)
    encoders = {
        model if isinstance(model, str) else model.name: load_frozen(model) if isinstance(model, str) else model
        for model in models
    }
    images = read_pictures(pictures, size)
    visualize(encoders, images, output, align_to=align_to)
    return Path(output)


def read_pictures(files: Sequence[str | Path], size: int) -> Tensor:
    """Picture files as floats [B, 3, H, W] in [0, 1], see `fitted_pictures`.

    Raises:
        PictureError: a file cannot be read as a picture.
    """
    return fitted_pictures([transforms.pil_to_tensor(decode_picture(Path(file))) for file in files], size)


def fitted_pictures(pictures: Sequence[Tensor], size: int) -> Tensor:
    """Pictures as floats [B, 3, H, W] in [0, 1], all cropped about their centre to the shape of the first.

    Args:
        pictures: at least one, each uint8 [3, H, W].
        size: their shorter side in pixels.
    """
    first = (pictures[0].shape[2], pictures[0].shape[1])
    width, height = (max(1, round(side * size / min(first))) for side in first)
    images = (transforms.to_pil_image(picture) for picture in pictures)
    fitted = [ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC) for image in images]
    return torch.stack([transforms.to_dtype(transforms.to_image(one), torch.float32, scale=True) for one in fitted])


def _sheet(columns: Mapping[str, Tensor]) -> Drawing:
    count, _, height, width = next(iter(columns.values())).shape
    cell = 1.8  # inches
    titles = [textwrap.fill(name, 22) for name in columns]
    head = 0.2 * max(title.count("\n") + 1 for title in titles) + 0.1
    tight = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    drawing = Drawing(figsize=(cell * len(columns), cell * height / width * count + head), layout=tight)
    grid = drawing.subplots(count, len(columns), squeeze=False)
    for column, (title, pictures) in enumerate(zip(titles, columns.values(), strict=True)):
        grid[0, column].set_title(title, fontsize=8.5)
        for row, picture in enumerate(pictures):
            grid[row, column].imshow(picture.permute(1, 2, 0).numpy(), interpolation="antialiased")
            grid[row, column].set_axis_off()
    return drawing


def patch_map(encoder: Encoder, images: Tensor, size: int | tuple[int, int] | None = None) -> Tensor:
    """Patches float32 [B, D, h, w] of pictures [B, 3, H, W] in [0, 1]; for `size` see `pca_columns`.

    The encoder computes in evaluation mode, on its own device; the result is on the CPU.
    """
    wanted = _input_size(encoder, (images.shape[2], images.shape[3]), size)
    training = encoder.training
    encoder.eval()
    try:
        with torch.inference_mode():
            fitted = images
            if images.shape[2:] != wanted:
                fitted = F.interpolate(images, size=wanted, mode="bicubic", antialias=True).clamp(0, 1)
            return encoder(fitted.to(encoder.device)).patches.float().cpu()
    finally:
        encoder.train(training)


def _input_size(encoder: Encoder, picture: tuple[int, int], wanted: int | tuple[int, int] | None) -> tuple[int, int]:
    if isinstance(wanted, tuple):
        return wanted
    factor = wanted / min(picture) if wanted is not None else 1.0
    return encoder.fitting_size((max(1, round(picture[0] * factor)), max(1, round(picture[1] * factor))))
