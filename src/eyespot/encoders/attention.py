"""Which of PyTorch's attention kernels an encoder uses."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

FEW_TOKENS = 200


def attention_for(images: Tensor, stride: int) -> AbstractContextManager[None]:
    """How attention is computed: among few tokens, in bfloat16 on a CPU, PyTorch's fused kernel is slow backwards.

    Three times as slow at 50 tokens, level at 200; beyond that it is the better one, and saves memory. Forwards alone
    it is always the better one.

    Args:
        images: [B, 3, H, W], what the encoder looks at.
        stride: pixels per patch.
    """
    few = images.shape[2] * images.shape[3] <= FEW_TOKENS * stride**2
    if not few or images.device.type != "cpu" or torch.compiler.is_compiling():
        return nullcontext()
    slow = torch.is_autocast_enabled("cpu") and torch.is_grad_enabled()
    return sdpa_kernel(SDPBackend.MATH) if slow else nullcontext()
