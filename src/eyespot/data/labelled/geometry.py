"""What depth maps say about the scene: which pixel of one frame is which of another, and which way surfaces face."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def back_project(depth: Tensor, intrinsics: Tensor) -> Tensor:
    """Points of a depth map in camera space (x right, y down, z forward).

    Args:
        depth: [H, W], metres along the optical axis.
        intrinsics: [3, 3] pinhole matrix for continuous pixel coordinates (first pixel's centre at (0.5, 0.5)).

    Returns:
        [H*W, 3] float64 metres, row-major.
    """
    pixels = pixel_centres(depth.shape[0], depth.shape[1])
    homogeneous = torch.cat([pixels, torch.ones(len(pixels), 1, dtype=torch.float64)], dim=1)
    return homogeneous @ torch.linalg.inv(intrinsics.double()).T * depth.double().reshape(-1, 1)


def pixel_centres(height: int, width: int) -> Tensor:
    """[H*W, 2] float64 (x, y), row-major."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1).double() + 0.5


def covisible_points(
    source_depth: Tensor,
    target_depth: Tensor,
    intrinsics: Tensor,
    source_pose: Tensor,
    target_pose: Tensor,
    tolerance: float = 0.05,
) -> tuple[Tensor, Tensor]:
    """The pixels of the source frame that the target frame sees too, and where.

    Args:
        source_depth: [H, W] metres, 0 = no measurement.
        target_depth: the same for the target.
        intrinsics: [3, 3], of both frames; see `back_project`.
        source_pose: [4, 4], camera to world.
        target_pose: the same for the target.
        tolerance: a point is occluded if its depth in the target differs from what the target measured there by more
            than this share.

    Returns:
        source points [M, 2] (pixel centres) and target points [M, 2], (x, y) in continuous pixels, float64.
    """
    height, width = target_depth.shape
    to_target = torch.linalg.inv(target_pose.double()) @ source_pose.double()
    points = back_project(source_depth, intrinsics) @ to_target[:3, :3].T + to_target[:3, 3]
    distance = points[:, 2]
    landed = (points @ intrinsics.double().T)[:, :2] / distance.clamp(min=1e-6)[:, None]
    columns, rows = landed[:, 0].floor().long(), landed[:, 1].floor().long()
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height) & (distance > 1e-6)
    measured = target_depth.double()[rows.clamp(0, height - 1), columns.clamp(0, width - 1)]
    agrees = (measured > 0) & ((distance - measured).abs() <= tolerance * measured)
    seen = inside & agrees & (source_depth.flatten() > 0)
    return pixel_centres(*source_depth.shape)[seen], landed[seen]


def depth_to_normals(depth: Tensor, intrinsics: Tensor, window: int = 5, tolerance: float = 0.01) -> Tensor:
    """Surface normals of a depth map, by fitting a plane around each pixel (ours).

    The inverse depth of a plane is linear in the pixel coordinates. So around each pixel a linear function is fitted
    to the inverse depths by least squares, which is exact on planes and averages the noise of a depth camera.

    Args:
        depth: [H, W] metres along the optical axis; 0 = no measurement.
        intrinsics: [3, 3] pinhole matrix; see `back_project`.
        window: odd side of the square of pixels that is fitted.
        tolerance: the largest root mean square misfit, as a share of the inverse depth. Windows across an edge between
            two surfaces fit worse.

    Returns:
        [3, H, W] float32 unit normals in the camera frame (x right, y down, z forward), towards the camera. 0 0 0 where
        the pixel or more than half of its window is not measured, and where the fit is too bad.
    """
    measured = (depth > 0).double()
    inverse = torch.where(depth > 0, 1 / depth.double().clamp(min=1e-6), 0.0)
    # Sums in float32 are twice as fast and turn no normal by more than 0.05 degrees.
    moments = _window_moments(torch.stack([measured, inverse, inverse.square()]).float(), window).double()
    (n, x, y, xx, xy, yy), (b, bx, by), squares = moments[0], moments[1, :3], moments[2, 0]
    slope_x, slope_y, level, determinant = _solve_symmetric(xx, xy, x, yy, y, n, bx, by, b)
    misfit = squares - (slope_x * bx + slope_y * by + level * b)
    enough = (depth > 0) & (n >= window * window / 2) & (determinant > 1e-9 * n**3)
    flat = misfit.clamp(min=0) <= n * (tolerance * inverse).square()
    columns, rows = pixel_centres(*depth.shape).T.reshape(2, *depth.shape)
    plane = torch.stack([slope_x, slope_y, level - slope_x * columns - slope_y * rows])
    # 1/z = plane . pixel = (K^T plane) . ray, and the plane's normal is what its rays are multiplied with.
    normals = -torch.einsum("ji,jhw->ihw", intrinsics.double(), plane)
    return torch.where(enough & flat, F.normalize(normals, dim=0), 0.0).float()


def _window_moments(values: Tensor, window: int) -> Tensor:
    """Sums over the window around each pixel of values [M, H, W] times 1, x, y, xx, xy, yy: [M, 6, H, W].

    x and y count pixels from the window's centre; beyond the border values are 0.
    """
    reach = window // 2
    offset = torch.arange(-reach, reach + 1, dtype=values.dtype)
    y, x = torch.meshgrid(offset, offset, indexing="ij")
    kernels = torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y])
    return F.conv2d(values[:, None], kernels[:, None], padding=reach)


def _solve_symmetric(
    a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor, f: Tensor, p: Tensor, q: Tensor, r: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Solves [[a, b, c], [b, d, e], [c, e, f]] u = [p, q, r] by Cramer's rule: u and the determinant."""
    first, second, third = d * f - e * e, c * e - b * f, b * e - c * d
    determinant = a * first + b * second + c * third
    safe = torch.where(determinant.abs() > 1e-12, determinant, 1.0)
    middle, cross, last = a * f - c * c, b * c - a * e, a * d - b * b
    return (
        (first * p + second * q + third * r) / safe,
        (second * p + middle * q + cross * r) / safe,
        (third * p + cross * q + last * r) / safe,
        determinant,
    )
