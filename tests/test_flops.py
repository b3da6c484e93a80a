"""The counter counts attention wherever it is computed, in every version of torch."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from eyespot.flops import flop_counter
from eyespot.plan.meter import WorkCounter

BATCH, HEADS, TOKENS, WIDTH = 2, 3, 7, 16
PRODUCT = 2 * BATCH * HEADS * TOKENS**2 * WIDTH  # every token with every other one


@pytest.mark.parametrize(
    ("kernel", "backward_products"), [(SDPBackend.FLASH_ATTENTION, 5), (SDPBackend.MATH, 4)], ids=["fused", "plain"]
)
def test_attention_on_a_processor_is_counted(kernel: SDPBackend, backward_products: int) -> None:
    query, key, value = (torch.randn(BATCH, HEADS, TOKENS, WIDTH, requires_grad=True) for _ in range(3))
    with sdpa_kernel(kernel), flop_counter() as counter, WorkCounter() as meter:
        out = scaled_dot_product_attention(query, key, value)
        assert counter.get_total_flops() == meter.flops == 2 * PRODUCT
        out.sum().backward()
    assert counter.get_total_flops() == meter.flops == (2 + backward_products) * PRODUCT
