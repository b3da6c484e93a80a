"""Counting operations with torch's counter, and what that counter forgets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

Formula = Callable[..., int]


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    count: int = sdpa_flop_count(query, key, value)
    return count


def _attention_backward(
    gradient: torch.Size, query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any
) -> int:
    count: int = sdpa_backward_flop_count(gradient, query, key, value)
    return count


FORGOTTEN: Mapping[Any, Formula] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""Fused attention on processors, by torch's own formulas of fused attention on GPUs.

Torch 2.14 leaves it out, so that a ViT on a processor seems to have no attention; 2.15 counts it, by the same formulas.
"""


def flop_counter() -> FlopCounterMode:
    """Torch's counter, silent, with the same count in every version of torch."""
    return FlopCounterMode(display=False, custom_mapping=dict(FORGOTTEN))
