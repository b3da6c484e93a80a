"""Teacher-specific adapter paths (SAK, paper notes (b)): what the stem computes, turned towards one teacher."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INIT_STD = 0.02


class Adapter(nn.Module):
    """Residual bottleneck: x + s * (W_up GELU(W_down x + b_down) + b_up), with one learned scalar s.

    s starts at 1, so that an adapter is no identity at the start. It has one dimension because FSDP cannot shard
    numbers without any.

    Args:
        width: D; the bottleneck has D // 4.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, width // 4)
        self.up = nn.Linear(width // 4, width)
        self.scale = nn.Parameter(torch.ones(1))
        self.apply(init_weights)

    def forward(self, tokens: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        change: Tensor = self.up(F.gelu(self.down(tokens)))
        return tokens + self.scale * change


class TeacherPath(nn.Module):
    """The path of one teacher t: an adapter on the patch embedding h^0 and one behind every block h^1..h^L.

    r^0 = A_0(h^0) and r^l = A_l(r^(l-1) + h^l). Since every adapter has a skip, r^l holds the sum of all h so far and
    grows with depth; so each tapped level has a LayerNorm of its own, which gives F_t^l.

    Args:
        width: D.
        blocks: L.
        levels: how many levels are tapped.
    """

    def __init__(self, width: int, blocks: int, levels: int) -> None:
        super().__init__()
        self.adapters = nn.ModuleList(Adapter(width) for _ in range(blocks + 1))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(levels))

    def advance(self, depth: int, state: Tensor | None, tokens: Tensor) -> Tensor:
        """r^depth, [B, N, D].

        Args:
            depth: 0 for the patch embedding, l after block l (counted from 1).
            state: r^(depth-1); None at depth 0.
            tokens: h^depth [B, N, D], prefix tokens included.
        """
        advanced: Tensor = self.adapters[depth](tokens if state is None else state + tokens)
        return advanced


def init_weights(module: nn.Module) -> None:
    """Truncated normal weights and zero biases for linear layers; norms keep their 1 and 0 (paper notes (b))."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=INIT_STD)
        nn.init.zeros_(module.bias)
