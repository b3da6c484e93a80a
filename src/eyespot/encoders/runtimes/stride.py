"""The stride of a model of which only the grids are seen that it makes of pictures."""

from __future__ import annotations

from collections.abc import Callable

GridOf = Callable[[int, int], tuple[int, int] | None]


def find_stride(grid_of: GridOf, size: tuple[int, int], grid: tuple[int, int], name: str) -> int:
    """Pixels per patch of a model that takes pictures of any size (ours).

    One picture does not say it: 4 rows of 72 pixels are a stride of 18, or of 16 with a rest that was cut off. So a
    narrow picture is shown that would make the grid of each stride in question, and of no other.

    Args:
        grid_of: the grid of a picture of (height, width) in pixels; None if it cannot be taken.
        size: (height, width) of a picture.
        grid: what the model made of it.
        name: of the model.

    Raises:
        ValueError: no stride explains the grids; asks for a size.
    """
    (height, width), (rows, columns) = size, grid
    nearest = -(-height // rows)
    likely = range(height // (rows + 1) + 1, -(-height // max(rows - 1, 1)) + 1)
    refused = False
    for stride in sorted(likely, key=lambda stride: abs(stride - nearest)):
        long = stride + 2 if stride <= 40 else stride // 2 + 2  # a stride that is 1 off, or 2, gives another count
        found = grid_of(2 * stride, long * stride)
        if found == (2, long):
            return stride
        refused = refused or found is None
    if refused and height % rows == 0 and (height // rows) * columns == width:
        return height // rows  # a model that takes no narrow pictures
    raise ValueError(
        f"{name}: a grid of {rows}x{columns} for a {height}x{width} picture does not say the stride; give a multiple "
        "of the model's own stride as size="
    )
