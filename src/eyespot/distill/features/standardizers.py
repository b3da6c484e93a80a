"""Standardizers put every teacher's features on one scale, so that no teacher drowns another.

All kinds share one interface: `observe` features before training, `finish`, then `forward` standardizes and `inverse`
undoes it exactly. Statistics live in buffers, so they are saved with the run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from eyespot.distill.features.rotations import balancing_rotation
from eyespot.features import Features

EPSILON = 1e-6  # not published; keeps constant features finite
LEAST_STD = 1e-3  # of the median channel's (ours): a channel dead in the statistics must not explode when it wakes


class Standardizer(nn.Module, ABC):
    """An invertible map over channels (dimension 1) of [N, C] or [N, C, h, w] tensors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self._count = 0.0

    def observe(self, values: Tensor) -> None:
        """Adds a batch to the statistics. Sums only: nothing of the size of the features is kept."""

    def finish(self) -> None:
        """Turns what was observed, pooled over all processes, into fixed statistics.

        Raises:
            ValueError: nothing was observed, or something that is not finite.
        """

    @abstractmethod
    def forward(self, values: Tensor) -> Tensor:
        """Standardizes, in float32."""

    @abstractmethod
    def inverse(self, values: Tensor) -> Tensor:
        """Undoes `forward`."""


class NoStandardizer(Standardizer):
    """Leaves features as they are: the control of an ablation."""

    def forward(self, values: Tensor) -> Tensor:
        """Returns the values in float32."""
        return values.float()

    def inverse(self, values: Tensor) -> Tensor:
        """Returns the values in float32."""
        return values.float()


class ChannelStandardizer(Standardizer):
    """(value - mean) / std per channel, estimated once before training, then frozen (EUPE section 4.1, A.3)."""

    mean: Tensor
    std: Tensor

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self._sums = torch.zeros(2, width, dtype=torch.float64)

    def observe(self, values: Tensor) -> None:
        """See `Standardizer.observe`."""
        count, sums = channel_sums(values)
        self._count += count
        self._sums = self._sums.to(sums.device) + sums

    def finish(self) -> None:
        """See `Standardizer.finish`."""
        count, sums = over_processes(self._count, self._sums)
        _refuse_unusable(count, sums)
        mean, variance = moments(count, sums)
        self.mean.copy_(mean)
        self.std.copy_(safe_std(variance))

    def forward(self, values: Tensor) -> Tensor:
        """See `Standardizer.forward`."""
        return (values.float() - _along(self.mean, values)) / _along(self.std, values)

    def inverse(self, values: Tensor) -> Tensor:
        """See `Standardizer.inverse`."""
        return values.float() * _along(self.std, values) + _along(self.mean, values)


class EmaStandardizer(ChannelStandardizer):
    """Per-channel statistics that follow the training batches (the choice of UNIC), starting from the observed ones.

    The momentum is constant (ours; UNIC anneals it). Sums of all processes enter, never gathered features.

    Args:
        width: channels.
        momentum: weight of each training batch, in (0, 1].
    """

    def __init__(self, width: int, momentum: float = 0.01) -> None:
        super().__init__(width)
        self.momentum = momentum

    def forward(self, values: Tensor) -> Tensor:
        """Standardizes with the running statistics, after moving them towards the batch if in training mode."""
        if self.training:
            mean, variance = moments(*over_processes(*channel_sums(values)))
            self.mean.lerp_(mean.float(), self.momentum)
            self.std.copy_(safe_std(self.std.square().lerp(variance.float(), self.momentum)))
        return super().forward(values)


class PhiStandardizer(Standardizer):
    """PHI-S (RADIOv2.5): centre, rotate to principal axes, rotate with a Hadamard matrix, one isotropic scale.

    Afterwards every channel has variance 1, and the map is orthogonal up to that one scale, so distances and angles
    of the teacher's space keep their proportions.
    """

    mean: Tensor
    rotation: Tensor
    scale: Tensor

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("rotation", torch.eye(width))
        self.register_buffer("scale", torch.ones(()))
        self._sums = torch.zeros(1 + width, width, dtype=torch.float64)

    def observe(self, values: Tensor) -> None:
        """See `Standardizer.observe`. Keeps C x C sums of products."""
        rows = values.double().movedim(1, -1).flatten(0, -2)
        self._count += float(len(rows))
        self._sums = self._sums.to(rows.device) + torch.cat([rows.sum(0, keepdim=True), rows.T @ rows])

    def finish(self) -> None:
        """See `Standardizer.finish`."""
        count, sums = over_processes(self._count, self._sums)
        _refuse_unusable(count, sums)
        mean = sums[0] / count
        covariance = sums[1:] / count - torch.outer(mean, mean)
        eigenvalues, axes = torch.linalg.eigh(covariance)
        eigenvalues = eigenvalues.clamp_min(0)
        self.mean.copy_(mean)
        self.rotation.copy_(balancing_rotation(eigenvalues) @ axes.T)
        self.scale.copy_(eigenvalues.mean().sqrt().clamp_min(EPSILON))

    def forward(self, values: Tensor) -> Tensor:
        """See `Standardizer.forward`."""
        with torch.autocast(values.device.type, enabled=False):  # which would round the product to its own precision
            centred = (values.float() - _along(self.mean, values)).movedim(1, -1)
            return (centred @ self.rotation.T / self.scale).movedim(-1, 1)

    def inverse(self, values: Tensor) -> Tensor:
        """See `Standardizer.inverse`."""
        with torch.autocast(values.device.type, enabled=False):
            rotated = values.float().movedim(1, -1) * self.scale @ self.rotation
            return rotated.movedim(-1, 1) + _along(self.mean, values)


STANDARDIZERS: dict[str, type[Standardizer]] = {
    "none": NoStandardizer,
    "channel": ChannelStandardizer,
    "ema": EmaStandardizer,
    "phi_s": PhiStandardizer,
}


class FeatureStandardizer(nn.Module):
    """One standardizer for a teacher's summaries, one for its patches.

    Args:
        kind: a key of `STANDARDIZERS`.
        dims: (summary, patch) widths of the teacher.
    """

    def __init__(self, kind: str, dims: tuple[int, int]) -> None:
        super().__init__()
        self.summary = STANDARDIZERS[kind](dims[0])
        self.patch = STANDARDIZERS[kind](dims[1])

    def observe(self, features: Features) -> None:
        """Adds a batch to the statistics of both."""
        self.summary.observe(features.summary)
        self.patch.observe(features.patches)

    def finish(self) -> None:
        """Fixes the statistics of both."""
        self.summary.finish()
        self.patch.finish()

    def forward(self, features: Features) -> Features:
        """Teacher features in standardized space."""
        return Features(self.summary(features.summary), self.patch(features.patches))

    def inverse(self, features: Features) -> Features:
        """Standardized features back in the teacher's own space."""
        return Features(self.summary.inverse(features.summary), self.patch.inverse(features.patches))


def channel_sums(values: Tensor) -> tuple[float, Tensor]:
    """How many vectors there are, and [2, C]: the sums over them of values and of squares, in float64."""
    rows = values.double().movedim(1, -1).flatten(0, -2)
    return float(len(rows)), torch.stack([rows.sum(0), rows.square().sum(0)])


def moments(count: float, sums: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance per channel from `channel_sums`."""
    mean = sums[0] / count
    return mean, (sums[1] / count - mean.square()).clamp_min(0)


def safe_std(variance: Tensor) -> Tensor:
    """Standard deviation per channel, not below a thousandth of the median channel's nor below `EPSILON`."""
    std = variance.sqrt()
    return std.clamp_min(max(EPSILON, LEAST_STD * float(std.median())))


def over_processes(count: float, sums: Tensor) -> tuple[float, Tensor]:
    """The same sums pooled over all processes of a distributed run."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return count, sums
    packed = torch.cat([sums.new_tensor([count]), sums.flatten()])
    dist.all_reduce(packed)
    return float(packed[0]), packed[1:].view_as(sums)


def finish_all(standardizers: Iterable[tuple[str, Standardizer | FeatureStandardizer]]) -> None:
    """Ends the observation of several standardizers.

    Args:
        standardizers: each with the name of its teacher, for the message.

    Raises:
        ValueError: a teacher gives NaN or infinite features; says which.
    """
    for name, standardizer in standardizers:
        try:
            standardizer.finish()
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error


def _refuse_unusable(count: float, sums: Tensor) -> None:
    if count == 0:
        raise ValueError("no features were observed: the statistics need at least one batch")
    if not sums.isfinite().all():
        raise ValueError("the features hold NaN or infinite values")


def _along(per_channel: Tensor, values: Tensor) -> Tensor:
    """A vector over channels, shaped to broadcast against `values` (channels in dimension 1)."""
    return per_channel.view(1, -1, *([1] * (values.ndim - 2)))
