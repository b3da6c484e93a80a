"""How a file of another runtime takes pictures (layout, type and sizes) and the type of what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

TYPES: Mapping[str, torch.dtype] = {
    **dict.fromkeys(("float", "float32", "f32"), torch.float32),
    **dict.fromkeys(("float16", "f16"), torch.float16),
    **dict.fromkeys(("double", "float64", "f64"), torch.float64),
    **dict.fromkeys(("bfloat16", "bf16"), torch.bfloat16),
    **dict.fromkeys(("uint8", "u8"), torch.uint8),
}
"""What runtimes call the types that pictures may have."""


@dataclass(frozen=True)
class PictureInput:
    """The input of a file.

    Attributes:
        dtype: its type. Floats are what the graph was made for; uint8 are levels from 0 to 255.
        channels_last: whether it is [batch, H, W, 3] and not [batch, 3, H, W].
        batch: how many pictures a run takes; None for any number.
        sides: (height, width) in pixels, None where any will do.
    """

    dtype: torch.dtype
    channels_last: bool
    batch: int | None
    sides: tuple[int | None, int | None]

    @property
    def takes_levels(self) -> bool:
        """Whether it wants levels from 0 to 255, so that the graph must normalise for itself."""
        return self.dtype == torch.uint8

    def of(self, images: Tensor) -> Tensor:
        """Pictures [b, 3, H, W], float32, as this input takes them."""
        images = images.permute(0, 2, 3, 1) if self.channels_last else images
        if self.takes_levels:
            images = (images * 255).round().clamp(0, 255)
        return images.to(self.dtype).contiguous()


def as_floats(name: str, value: Any) -> Tensor:
    """An output as float32.

    Args:
        name: of the output.
        value: a tensor or an array of NumPy.

    Raises:
        ValueError: it holds something else than floats.
    """
    floats = value if isinstance(value, Tensor) else None
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        floats = torch.from_numpy(value)
    if floats is None or not floats.is_floating_point():
        kind = getattr(value, "dtype", type(value).__name__)
        raise ValueError(f"its output {name} is of type {kind}, not floats; name another, or export it as float32")
    return floats.float()


def read_input(
    kind: str, path: Path, names: Sequence[str], shape: Sequence[Any], dtype: str, allowed: Sequence[torch.dtype]
) -> PictureInput:
    """What the first input of a file takes.

    Args:
        kind: prefix of the spec.
        path: the file.
        names: of all its inputs.
        shape: of the first; what is no number is open.
        dtype: of the first, as the runtime calls it.
        allowed: types that this runtime can be given.

    Raises:
        ValueError: it takes something else than pictures alone; says how to export it.
    """
    spec = f"{kind}/{path}"
    if len(names) > 1:
        raise ValueError(
            f"{spec} takes {len(names)} inputs ({', '.join(names)}), and eyespot gives pictures alone; export it anew "
            "with the others as constants in the graph"
        )
    known = TYPES.get(dtype)
    if known not in allowed:
        raise ValueError(f"{spec}: its input is of type {dtype}; export it with pictures as float32 or uint8")
    assert known is not None
    sides = [side if isinstance(side, int) else None for side in shape]
    channels_last = len(sides) == 4 and sides[3] == 3 and sides[1] != 3
    if len(sides) != 4 or (not channels_last and sides[1] not in (3, None)):
        raise ValueError(
            f"{spec}: the first input must be pictures [batch, 3, H, W] or [batch, H, W, 3], it is {list(shape)}; "
            "export it so"
        )
    height, width = sides[1:3] if channels_last else sides[2:4]
    return PictureInput(known, channels_last, sides[0], (height, width))
