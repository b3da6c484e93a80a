"""Rotations that spread variance evenly over channels, for PHI-S."""

from __future__ import annotations

import torch
from torch import Tensor


def balancing_rotation(eigenvalues: Tensor) -> Tensor:
    """An orthogonal R [C, C] such that R diag(eigenvalues) R^T has the same value everywhere on its diagonal.

    A normalised Hadamard matrix where one is known for the width (as PHI-S has it; it does so for any eigenvalues),
    otherwise a product of plane rotations made for these eigenvalues (ours; exact for any width).
    """
    matrix = hadamard(len(eigenvalues))
    if matrix is not None:
        return matrix.to(eigenvalues) / len(eigenvalues) ** 0.5
    return _plane_rotations(eigenvalues)


def hadamard(order: int) -> Tensor | None:
    """A Hadamard matrix of `order` (entries 1 and -1, orthogonal rows) by Sylvester's and Paley's constructions.

    Returns:
        float64 [order, order], or None where the two constructions have none.
    """
    core, doublings = order, 0
    while not (core in (1, 2) or _is_paley_prime(core - 1)):
        if core % 2:
            return None
        core, doublings = core // 2, doublings + 1
    matrix = torch.ones(1, 1, dtype=torch.float64) if core == 1 else _paley(core) if core > 2 else _SYLVESTER
    for _ in range(doublings):
        matrix = torch.kron(_SYLVESTER, matrix)
    return matrix


_SYLVESTER = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)


def _is_paley_prime(q: int) -> bool:
    return q > 2 and q % 4 == 3 and all(q % divisor for divisor in range(3, int(q**0.5) + 1, 2))


def _paley(order: int) -> Tensor:
    """Paley's first construction, order q + 1 for a prime q = 3 mod 4."""
    q = order - 1
    squares = {value * value % q for value in range(1, q)}
    residue = torch.tensor([0] + [1 if value in squares else -1 for value in range(1, q)], dtype=torch.float64)
    index = torch.arange(q)
    skew = torch.zeros(order, order, dtype=torch.float64)
    skew[0, 1:] = 1
    skew[1:, 0] = -1
    skew[1:, 1:] = residue[(index[None, :] - index[:, None]) % q]
    return skew + torch.eye(order, dtype=torch.float64)


def _plane_rotations(eigenvalues: Tensor) -> Tensor:
    """Sets one diagonal entry after the other to the mean by rotating it against one on the other side of the mean."""
    values = eigenvalues.double()
    values = values / values.max().clamp_min(torch.finfo(torch.float64).tiny)  # products of tiny ones would vanish
    width, mean = len(values), values.mean()
    matrix = torch.diag(values)
    rotation = torch.eye(width, dtype=torch.float64)
    open_entries = list(range(width))
    for _ in range(width - 1):
        excess = matrix.diagonal()[open_entries] - mean
        low, high = open_entries[int(excess.argmin())], open_entries[int(excess.argmax())]
        if low == high or excess.abs().max() <= 1e-12 * mean.abs():
            break
        plane = _plane_rotation(matrix, low, high, mean)
        rows = torch.tensor([low, high])
        matrix[rows] = plane @ matrix[rows]
        matrix[:, rows] = matrix[:, rows] @ plane.T
        rotation[rows] = plane @ rotation[rows]
        open_entries.remove(low)
    return rotation.to(eigenvalues)


def _plane_rotation(matrix: Tensor, low: int, high: int, mean: Tensor) -> Tensor:
    """[2, 2] rotation of entries (low, high) after which matrix[low, low] equals `mean`."""
    a, b, c = matrix[low, low] - mean, matrix[low, high], matrix[high, high] - mean
    tangent = (b + torch.sqrt(b * b - a * c)) / c if c != 0 else -a / (2 * b)
    cosine = 1 / torch.sqrt(1 + tangent * tangent)
    sine = tangent * cosine
    return torch.stack([torch.stack([cosine, -sine]), torch.stack([sine, cosine])])
