"""Principal components of patch features: fewer numbers per patch, and how much of their variance is left."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Projection:
    """An orthonormal basis of the directions in which patches of one teacher differ most.

    Attributes:
        mean: float32 [D], the mean patch.
        components: float32 [D, K], orthonormal columns, largest variance first.
        kept_variance: share of the patches' total variance that lies in these directions, in [0, 1].
    """

    mean: Tensor
    components: Tensor
    kept_variance: float

    def project(self, patches: Tensor) -> Tensor:
        """Patch maps [B, D, h, w] as coefficients [B, K, h, w]."""
        return torch.einsum("bdhw,dk->bkhw", patches - self.mean[:, None, None], self.components)

    def restore(self, coefficients: Tensor) -> Tensor:
        """Coefficients [B, K, h, w] as the nearest patch maps [B, D, h, w] of the subspace."""
        flat = torch.matmul(self.components, coefficients.flatten(2)) + self.mean[:, None]
        return flat.unflatten(2, coefficients.shape[2:])

    def to(self, device: torch.device) -> Projection:
        """The same on another device."""
        return Projection(self.mean.to(device), self.components.to(device), self.kept_variance)


def fit_projection(maps: Iterable[Tensor], rank: int) -> Projection:
    """The first principal components of patch vectors.

    Ours: batches are summed up about the first one's mean, in float32 within a batch and float64 over batches, so that
    channels with a large common value lose nothing. Each component's largest entry is positive, which makes the basis
    unique.

    Args:
        maps: patch maps [B, D, h, w] of any batch sizes.
        rank: K, how many components; at most D.

    Raises:
        ValueError: there are no maps, or their values are NaN or infinite.
    """
    batches = iter(maps)
    first = next(batches, None)
    if first is None:
        raise ValueError("principal components need at least one picture")
    width = first.shape[1]
    shift = first.float().mean((0, 2, 3))
    count, total = 0, torch.zeros(width, dtype=torch.float64)
    products = torch.zeros(width, width, dtype=torch.float64)
    for patches in itertools.chain([first], batches):
        vectors = patches.float().movedim(1, -1).flatten(0, -2) - shift
        count += len(vectors)
        total += vectors.sum(0).cpu()
        products += (vectors.T @ vectors).cpu()
    if not bool(products.isfinite().all()):
        raise ValueError("features are NaN or infinite")
    variances, directions = torch.linalg.eigh(products / count - torch.outer(total, total) / count**2)
    components = directions.flip(1)[:, :rank]
    largest = components.gather(0, components.abs().argmax(0, keepdim=True))
    kept = variances.flip(0)[:rank].sum() / variances.sum().clamp(min=torch.finfo(torch.float64).tiny)
    mean = shift.cpu().double() + total / count
    return Projection(mean.float(), (components * largest.sign()).float().contiguous(), float(kept))
