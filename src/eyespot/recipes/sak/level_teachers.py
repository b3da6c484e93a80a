"""Level teachers: frozen encoders that show their maps at four depths, for students taught level by level (SAK)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from eyespot.encoders import Encoder
from eyespot.encoders.taps import STAGES, Taps, equal_blocks, stage_taps
from eyespot.features import Features
from eyespot.pictures import resize_pictures
from eyespot.recipes.sak.config import Inputs

QUARTERS = (0.25, 0.5, 0.75, 1.0)
"""Depths of the four levels, as shares of all blocks: blocks 3, 6, 9, 12 of 12 and 6, 12, 18, 24 of 24 (SAK)."""

Size = int | tuple[int, int] | None


class LevelTeachers(nn.Module):
    """Frozen teachers of any kind, asked for their maps at every level in one pass each.

    Which maps those are:

    - encoders of equal blocks (ViT, from any source): what the blocks at these depths give, without the final norm and
      without prefix (class, register) tokens, as in SAK's code;
    - encoders with stages (CNNs, Swin): their last four stages (ours);
    - encoders with levels of their own (`level_taps`: a path of a multi-task model, `run/FOLDER?path=NAME`): what they
      show there (ours);
    - encoders without inner layers (ONNX, OpenVINO and other files): their `patches` at the LAST level only (ours).

    How they look, `inputs`:

    - "own" (ours): each with its own normalisation, at the size it can take that is nearest to the wanted one. The map
      always covers the whole picture.
    - "as_published" (SAK's code): all with ImageNet's statistics, but for those that normalise inside. Who takes any
      size sees the top left of the picture, up to whole patches. Who takes one size only (SAM) sees the picture scaled
      to fit (bicubically, then limited to [0, 1], the limit ours) with ImageNet's mean colour below or beside it, which
      is not cut from the map: the student's map is compared with one that is partly padding.

    Args:
        teachers: encoders by name.
        depths: of the four levels, ascending shares of all blocks in (0, 1]; see `depths_of`.
        inputs: see above.
        max_grid: maps with more rows or columns than this are averaged down to it (ours; saves memory). None keeps
            them.

    Attributes:
        widths: D_t of each teacher's levels, `widths[teacher][level]`; levels count from 0. Found by showing every
            teacher one grey picture.

    Raises:
        ValueError: no teachers, other depths, or a teacher whose inner maps are no grid.
    """

    def __init__(
        self,
        teachers: Mapping[str, Encoder],
        *,
        depths: Sequence[float] = QUARTERS,
        inputs: Inputs = "own",
        max_grid: int | None = None,
    ) -> None:
        super().__init__()
        if not teachers:
            raise ValueError("level teachers need at least one teacher")
        if len(depths) != STAGES or list(depths) != sorted(set(depths)) or not 0 < depths[0] <= depths[-1] <= 1:
            raise ValueError(f"depths are {STAGES} ascending shares of all blocks in (0, 1], got {list(depths)}")
        if inputs not in ("own", "as_published"):
            raise ValueError(f"inputs is own or as_published, not {inputs!r}")
        self.teachers = nn.ModuleDict(teachers)
        self.inputs, self.max_grid = inputs, max_grid
        self.register_buffer("mean", torch.tensor(IMAGENET_DEFAULT_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_DEFAULT_STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.train(False)
        self._level_maps = {name: LevelMaps(teacher, depths) for name, teacher in self.items()}
        self.widths = {name: self._probe(name) for name in self._level_maps}

    mean: Tensor
    std: Tensor

    def train(self, mode: bool = True) -> LevelTeachers:
        """Teachers stay in eval mode, whatever the task around them does."""
        return super().train(False)

    def items(self) -> Iterable[tuple[str, Encoder]]:
        """(name, teacher) pairs."""
        return self.teachers.items()  # type: ignore[return-value]

    @torch.no_grad()
    def forward(self, images: Tensor, size: Size = None) -> dict[str, dict[int, Tensor]]:
        """Maps of every teacher and level, `maps[teacher][level]` float32 [B, D_t, h, w].

        Args:
            images: [B, 3, H, W] in [0, 1].
            size: (height, width), or the side of a square, at which teachers look that take any; None: that of the
                pictures.
        """
        return {name: self.look(name, images, size) for name in self._level_maps}

    def look(self, name: str, images: Tensor, size: Size = None) -> dict[int, Tensor]:
        """One teacher's maps by level; see `forward`."""
        level_maps, teacher = self._level_maps[name], self._level_maps[name].teacher
        height, width = images.shape[2:]
        if self.inputs == "own":
            pictures = resize_pictures(images, teacher.fitting_size(size or (height, width)))
            maps = level_maps(pictures)
        else:
            pictures = resize_pictures(images, _pair(size) or (height, width))
            with _normalising_by(self.mean, self.std, level_maps.normalising):
                maps = level_maps(_as_published(pictures, teacher, self.mean))
        return {level: self._limited(value.float()) for level, value in maps.items()}

    def input_size(self, name: str, height: int, width: int, size: Size = None) -> tuple[int, int]:
        """(height, width) in pixels at which a teacher looks at pictures of a size; see `forward`."""
        teacher = self._level_maps[name].teacher
        if self.inputs == "as_published" and teacher.native_size is None:
            rows, columns = _pair(size) or (height, width)
            return rows // teacher.stride * teacher.stride, columns // teacher.stride * teacher.stride
        return teacher.fitting_size(size or (height, width))

    def _limited(self, values: Tensor) -> Tensor:
        rows, columns = values.shape[2:]
        if self.max_grid is None or max(rows, columns) <= self.max_grid:
            return values
        return F.adaptive_avg_pool2d(values, (min(rows, self.max_grid), min(columns, self.max_grid)))

    @torch.no_grad()
    def _probe(self, name: str) -> dict[int, int]:
        level_maps = self._level_maps[name]
        if level_maps.levels == (STAGES - 1,):
            return {level: level_maps.teacher.patch_dim for level in level_maps.levels}
        size = level_maps.teacher.default_size
        try:
            maps = level_maps(torch.full((1, 3, *size), 0.5, device=level_maps.teacher.device))
        except ValueError as error:
            raise ValueError(f"teacher {name!r} does not show its levels: {error}") from error
        return {level: value.shape[1] for level, value in maps.items()}


class LevelMaps:
    """Asks one teacher for its maps by level.

    Args:
        teacher: the encoder.
        depths: of the levels.

    Attributes:
        levels: numbers of those that this teacher has, ascending.
        normalising: the encoders in it that normalise pictures, by whatever statistics.
    """

    def __init__(self, teacher: Encoder, depths: Sequence[float]) -> None:
        self.teacher = teacher
        encoders = [part for part in teacher.modules() if isinstance(part, Encoder)]
        # Files often normalise inside, and RADIO does; they are told by statistics that change nothing.
        self.normalising = [part for part in encoders if part.mean.any() or not part.std.eq(1).all()]
        self._modules = level_modules(teacher, depths)
        numbers = tuple(range(len(depths)))
        self.levels = numbers if self._modules or teacher.level_taps else numbers[-1:]
        # A shallow teacher can have one block for two levels, which then is watched once.
        self._taps = Taps(teacher, tuple(dict.fromkeys(self._modules))) if self._modules else None

    def __call__(self, images: Tensor) -> dict[int, Tensor]:
        """Maps [B, D, h, w] by level, of pictures that the teacher takes, in one pass."""
        if self._taps is not None:
            features, tapped = self._taps(images)
            seen = dict(zip(self._taps.names, _as_maps(tapped, features, self.teacher.name), strict=True))
            maps = [seen[module] for module in self._modules]
        elif self.teacher.level_taps:
            maps = self.teacher.intermediates(images, self.teacher.level_taps)
        else:
            maps = [self.teacher(images).patches]
        return dict(zip(self.levels, maps, strict=True))


def level_modules(teacher: Encoder, depths: Sequence[float]) -> tuple[str, ...]:
    """Names of the modules that end the levels of an encoder, one for each depth, shallow to deep.

    Of equal blocks the one nearest to each depth; of stages the last four; empty where there are no inner layers to be
    seen, and for encoders with `level_taps`, whose levels no module gives.
    """
    if teacher.level_taps:
        return ()
    blocks = equal_blocks(teacher)
    if blocks:
        return tuple(blocks[max(1, math.floor(depth * len(blocks) + 0.5)) - 1] for depth in depths)
    try:
        return stage_taps(teacher)
    except ValueError:
        return ()


def depths_of(levels: Sequence[int]) -> tuple[float, ...]:
    """Depths of a student's levels, whose last is its last block: (2, 5, 8, 11) -> (0.25, 0.5, 0.75, 1.0)."""
    return tuple((level + 1) / (levels[-1] + 1) for level in levels)


@contextmanager
def _normalising_by(mean: Tensor, std: Tensor, encoders: Sequence[Encoder]) -> Iterator[None]:
    """Lets encoders normalise by other statistics for a while."""
    kept = [(encoder.mean, encoder.std) for encoder in encoders]
    try:
        for encoder in encoders:
            encoder.mean, encoder.std = mean, std
        yield
    finally:
        for encoder, (own_mean, own_std) in zip(encoders, kept, strict=True):
            encoder.mean, encoder.std = own_mean, own_std


def _as_published(images: Tensor, teacher: Encoder, colour: Tensor) -> Tensor:
    """Pictures as SAK's code shows them to a teacher: cut to whole patches, or scaled and padded to its only size."""
    if teacher.native_size is not None:
        return letterboxed(images, teacher.native_size, colour)
    # What a convolution with the patch's stride leaves over: a grid of floor(H / stride) x floor(W / stride).
    rows, columns = (side // teacher.stride * teacher.stride for side in images.shape[2:])
    return images[:, :, :rows, :columns]


def letterboxed(images: Tensor, size: tuple[int, int], colour: Tensor) -> Tensor:
    """Pictures [B, 3, H, W] in [0, 1] scaled to fit into (height, width), with a colour [1, 3, 1, 1] below or beside.

    If the colour is the mean by which a teacher normalises, the padding is 0 for it.
    """
    height, width = images.shape[2:]
    scale = min(size[0] / height, size[1] / width)
    inner = (max(1, round(height * scale)), max(1, round(width * scale)))
    if inner != (height, width):
        images = F.interpolate(images, size=inner, mode="bicubic", align_corners=False).clamp(0, 1)
    if inner == size:
        return images
    canvas = colour.to(images.dtype).expand(images.shape[0], 3, *size).clone()
    canvas[:, :, : inner[0], : inner[1]] = images
    return canvas


def _as_maps(tapped: Sequence[Tensor], features: Features, name: str) -> list[Tensor]:
    """Taps as maps [B, D, h, w]: tokens lose their prefix and get the grid of the patches, or a multiple of it."""
    rows, columns = features.grid
    # The last tap has one token per patch, and what stands in front of them.
    prefix = tapped[-1].shape[1] - rows * columns if tapped[-1].ndim == 3 else 0
    maps = []
    for tap in tapped:
        if tap.ndim == 3:
            factor = math.isqrt(max(0, tap.shape[1] - prefix) // (rows * columns))
            if prefix < 0 or tap.shape[1] - prefix != rows * columns * factor**2:
                raise ValueError(
                    f"{name}: {tap.shape[1]} tokens make no grid like that of its {rows}x{columns} patches"
                )
            tap = tap[:, prefix:].unflatten(1, (rows * factor, columns * factor)).permute(0, 3, 1, 2)
        maps.append(tap)
    return maps


def _pair(size: Size) -> tuple[int, int] | None:
    return (size, size) if isinstance(size, int) else size
