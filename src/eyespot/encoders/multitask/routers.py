"""Mixture-of-Representations routers (SAK, paper notes (b)): how much each path counts for a task at a level."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyespot.encoders.multitask.paths import init_weights

LEAST_NOISE = 0.01
NEWCOMER = -4.0
"""Logit of an expert that joins a trained router, relative to the mean of the others' (ours)."""


class Router(nn.Module):
    """Mixes the stem's map and the paths' maps of one level for one task: dense and soft, all experts count.

    The stem's tokens go through Linear(D, D/2), LayerNorm, GELU and Linear(D/2, 2 E); the mean over tokens gives for
    each of E experts a clean logit (first half) and what sets its noise (second half). While training

        z = clean + eps * (softplus(raw) + 0.01),    eps ~ N(0, 1) anew at every position,

    so that the weights differ from position to position; in eval mode z = clean, one vector per picture. The weights
    are softmax(z) over the experts, of which the first is the stem.

    Args:
        width: D.
        experts: E, the stem and all paths.
    """

    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(width, width // 2), nn.LayerNorm(width // 2), nn.GELU())
        self.logits = nn.Linear(width // 2, 2 * experts)
        self.apply(init_weights)

    @property
    def experts(self) -> int:
        """E."""
        return self.logits.out_features // 2

    def forward(self, maps: Sequence[Tensor], on: Sequence[int] | None = None) -> Tensor:
        """The mixture, [B, D, h, w].

        Args:
            maps: [B, D, h, w] of the stem (as it leaves the block) and of each path, in the order of `on`.
            on: which experts those are, ascending, the stem (0) among them; None for all. The softmax goes over them
                alone (ours).
        """
        stem = maps[0]
        clean, raw = self._logits(stem.flatten(2).transpose(1, 2), on)
        logits = clean[:, :, None, None]
        if self.training:
            deviation = (F.softplus(raw) + LEAST_NOISE)[:, :, None, None]
            noise = torch.randn(*clean.shape, *stem.shape[2:], device=clean.device, dtype=clean.dtype)
            logits = logits + deviation * noise
        weights = logits.softmax(1)
        return reduce(torch.add, (weights[:, number, None] * expert for number, expert in enumerate(maps)))

    def weights(self, tokens: Tensor, on: Sequence[int] | None = None) -> Tensor:
        """The mixing weights without noise, [B, E] (or as many as are on); each row adds up to 1.

        Args:
            tokens: [B, N, D], the stem's patch tokens behind the block, neither normed nor with the class token.
            on: see `forward`.
        """
        return self._logits(tokens, on)[0].softmax(1)

    def _logits(self, tokens: Tensor, on: Sequence[int] | None) -> tuple[Tensor, Tensor]:
        # The last layer is linear, so the mean over tokens may come before it: the same numbers for N times less work.
        clean, raw = self.logits(self.hidden(tokens).mean(1)).chunk(2, 1)
        if on is None or len(on) == self.experts:
            return clean, raw
        return clean[:, list(on)], raw[:, list(on)]

    @torch.no_grad()
    def rearrange(self, order: Sequence[int | None]) -> None:
        """Makes it a router of other experts, in place.

        Args:
            order: for each new expert the number of the old one that it is, or None for one that is new. A newcomer's
                clean logit is the mean of the old ones' minus 4, whatever the picture: then its weight is below
                exp(-4) / E, because a mean of exponentials is no less than the exponential of the mean. Zero weights
                and a bias of -4 would not promise that, since a softmax does not care where the old logits lie (ours).
                Its noise is the old ones' mean too.
        """
        old = self.logits
        weight, bias = old.weight.unflatten(0, (2, self.experts)), old.bias.unflatten(0, (2, self.experts))
        new_bias = bias.mean(1) + bias.new_tensor([NEWCOMER, 0.0])
        self.logits = nn.Linear(old.in_features, 2 * len(order), device=old.weight.device, dtype=old.weight.dtype)
        self.logits.requires_grad_(old.weight.requires_grad)
        rows = [weight.mean(1) if number is None else weight[:, number] for number in order]
        offsets = [new_bias if number is None else bias[:, number] for number in order]
        self.logits.weight.copy_(torch.stack(rows, 1).flatten(0, 1))
        self.logits.bias.copy_(torch.stack(offsets, 1).flatten())
