"""Which pixel of one RGB-D frame is which pixel of another."""

from __future__ import annotations

import torch
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
