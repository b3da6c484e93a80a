"""PCA pictures: what an encoder's patch features look like.

EUPE's PCA figures show patch tokens reduced to three components and drawn as red, green and blue. The paper is silent
on resolution, masking, joint or per-picture PCA, scaling and upsampling, so those choices are ours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot.features import resize_map

_LOW, _HIGH = 0.02, 0.98  # percentiles that become 0 and 255: a few outlier tokens must not set the contrast


def pca_scores(patches: Tensor, basis: Tensor | None = None) -> Tensor:
    """The first three principal components of patch features, each of zero mean and unit variance.

    Exact (eigenvectors of the covariance in float64) and deterministic: the largest loading of each component is
    positive. A component without variance (constant features, or fewer than three channels) is zero.

    Args:
        patches: [B, D, h, w]; all B*h*w positions form one sample.
        basis: features [B', D, h', w'] of the same encoder whose mean and components to use instead, e.g. those of the
            same pictures at another size.

    Returns:
        float32 [B, 3, h, w], by falling variance.

    Raises:
        ValueError: wrong rank, or values that are not finite.
    """
    tokens = _tokens(patches)
    mean, directions = _components(tokens if basis is None else _tokens(basis))
    scores = (tokens - mean) @ directions
    scores = F.pad(scores, (0, 3 - scores.shape[1]))
    batch, _, rows, columns = patches.shape
    return scores.reshape(batch, rows, columns, 3).permute(0, 3, 1, 2).float()


def _tokens(patches: Tensor) -> Tensor:
    """[B*h*w, D] float64."""
    if patches.ndim != 4:
        raise ValueError(f"expected patch features [B, D, h, w], got {tuple(patches.shape)}")
    if not torch.isfinite(patches).all():
        raise ValueError("the patch features hold NaN or infinite values; there is no PCA of that")
    return patches.detach().cpu().double().permute(0, 2, 3, 1).flatten(0, 2)


def _components(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [D] of tokens [N, D], and directions [D, up to 3] that make scores of unit variance."""
    centred = tokens - tokens.mean(0)
    variances, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
    variances, directions = variances.flip(0)[:3], directions.flip(1)[:, :3]
    directions = directions * directions.gather(0, directions.abs().argmax(0, keepdim=True)).sign()
    seen = variances > 1e-12 * tokens.square().mean().clamp(min=1e-30)  # below: rounding of float32 input
    return tokens.mean(0), torch.where(seen, directions / variances.clamp(min=1e-60).sqrt(), 0.0)


def pca_pictures(
    patches: Tensor,
    size: int | tuple[int, int],
    joint: bool = True,
    align_to: Tensor | None = None,
    basis: Tensor | None = None,
) -> Tensor:
    """Draws patch features as colours: three principal components as red, green and blue.

    Each component is stretched so that its 2nd and 98th percentiles become 0 and 255. Every patch becomes one flat
    cell (nearest neighbour), so the picture shows the resolution that the features really have. The colours of a PCA
    are arbitrary: compare shapes between encoders, not colours, unless `align_to` is given.

    Args:
        patches: [B, D, h, w].
        size: (height, width) of the result, or the side of a square, in pixels.
        joint: one PCA over the batch, so that equal colours mean equal features across its pictures; else one per
            picture.
        align_to: features [B, E, h', w'] of another encoder for the same pictures. The colours are then turned to
            those of its PCA picture by the best rotation or reflection of the three whitened components (orthogonal
            Procrustes); nothing but the choice of colours changes.
        basis: features [B, D, h', w'] of the same encoder for the same pictures, at another size say, whose components
            and contrast to use: equal colours then mean equal features in both.

    Returns:
        uint8 [B, 3, height, width].

    Raises:
        ValueError: wrong rank, values that are not finite, or `align_to` or `basis` for another number of pictures.
    """
    for name, other in (("align_to", align_to), ("basis", basis)):
        if other is not None and len(other) != len(patches):
            raise ValueError(f"{name} holds {len(other)} pictures, patches {len(patches)}")
    if not joint:
        singles = [[None] * len(patches) if one is None else one.split(1) for one in (align_to, basis)]
        parts = zip(patches.split(1), *singles, strict=True)
        return torch.cat([pca_pictures(one, size, True, other, fitted) for one, other, fitted in parts])
    scores = pca_scores(patches, basis)
    fitted_scores = scores if basis is None else pca_scores(basis)
    if align_to is not None:
        turn = _rotation(fitted_scores, pca_scores(align_to))
        scores, fitted_scores = (torch.einsum("ij,bjhw->bihw", turn, one) for one in (scores, fitted_scores))
    flat = fitted_scores.transpose(0, 1).flatten(1)
    low, high = (torch.quantile(flat, level, dim=1).view(1, 3, 1, 1) for level in (_LOW, _HIGH))
    stretched = torch.where(high > low, (scores - low) / (high - low).clamp(min=1e-12), 0.5)
    pictures = (stretched.clamp(0, 1) * 255).round().to(torch.uint8)
    return F.interpolate(pictures, size=(size, size) if isinstance(size, int) else size, mode="nearest-exact")


def _rotation(scores: Tensor, reference: Tensor) -> Tensor:
    """The orthogonal 3x3 matrix that brings `scores` [B, 3, h, w] closest to `reference` [B, 3, h', w']."""
    grid = (reference.shape[2], reference.shape[3])
    ours, theirs = (map_.transpose(0, 1).flatten(1).double() for map_ in (resize_map(scores, grid), reference))
    left, _, right = torch.linalg.svd(theirs @ ours.T)
    return (left @ right).float()
