"""Operations: closed formulas, hand counts and torch's counter agree."""

import pytest
import torch
from flop_formulas import (
    head_backward_flops,
    head_forward_flops,
    head_parameters,
    phi_s_flops,
    vit_backward_flops,
    vit_forward_flops,
)

from eyespot.distill.features.heads import TeacherAdapter
from eyespot.distill.features.standardizers import PhiStandardizer
from eyespot.features import Features
from eyespot.flops import flop_counter
from eyespot.plan.shapes import ShapeWorld

# name: side, extra tokens, width, depth, hidden, patch side
VITS = {
    "vit_tiny_patch16_dinov3_qkvb": (256, 5, 192, 12, 768, 16),
    "vit_small_patch16_dinov3_qkvb": (96, 5, 384, 12, 1536, 16),
    "vit_base_patch16_dinov3_qkvb": (256, 5, 768, 12, 3072, 16),
    "vit_large_patch14_reg4_dinov2": (518, 5, 1024, 24, 4096, 14),
    "vit_gigantic_patch14_224": (224, 1, 1664, 48, 8192, 14),
}


@pytest.mark.parametrize("name", VITS)
def test_formula_of_vits_equals_the_counter(name: str) -> None:
    side, extra, width, depth, hidden, patch = VITS[name]
    patches = (side // patch) ** 2
    shape = dict(tokens=patches + extra, width=width, depth=depth, hidden=hidden, patches=patches)
    world = ShapeWorld()
    encoder = world.student(f"timm/{name}?pretrained=false").encoder
    with world.mode, flop_counter() as counter:
        features = encoder(torch.empty(2, 3, side, side))
        forward = counter.get_total_flops()
        (features.summary.sum() + features.patches.sum()).backward()
    assert forward == 2 * vit_forward_flops(**shape, patch_inputs=3 * patch**2)
    assert counter.get_total_flops() - forward == 2 * vit_backward_flops(**shape, patch_inputs=3 * patch**2)


def test_formula_of_a_gated_mlp_equals_the_counter() -> None:
    world = ShapeWorld()
    encoder = world.student("timm/vit_huge_plus_patch16_dinov3_qkvb?pretrained=false").encoder
    with world.mode, flop_counter() as counter, torch.no_grad():
        encoder(torch.empty(1, 3, 256, 256))
    assert counter.get_total_flops() == vit_forward_flops(261, 1280, 32, 5120, 256, 768, gated=True)


def test_vit_b_by_hand() -> None:
    # 85.1 M weights in the blocks, twice per token; 12 blocks of attention over 261 tokens of width 768; the patches
    blocks = 12 * (4 * 768**2 + 2 * 768 * 3072)
    assert blocks == 84_934_656
    by_hand = 2 * blocks * 261 + 12 * 4 * 261**2 * 768 + 2 * 256 * 768 * 768
    assert vit_forward_flops(261, 768, 12, 3072, 256, 768) == by_hand
    assert by_hand / 1e9 == pytest.approx(47.149092864)


def test_formula_of_heads_equals_the_counter_and_their_weights() -> None:
    student, hidden, teacher, grid = (24, 40), 56, (72, 88), (3, 5)
    heads = TeacherAdapter(student, hidden, teacher)
    features = Features(torch.randn(2, 24, requires_grad=True), torch.randn(2, 40, *grid, requires_grad=True))
    with flop_counter() as counter:
        out = heads(features)
        forward = counter.get_total_flops()
        (out.summary.sum() + out.patches.sum()).backward()
    assert forward == 2 * head_forward_flops(student, hidden, teacher, 15)
    assert counter.get_total_flops() - forward == 2 * head_backward_flops(student, hidden, teacher, 15)
    assert sum(weight.numel() for weight in heads.parameters()) == head_parameters(student, hidden, teacher)


def test_formula_of_phi_s_equals_the_counter() -> None:
    with flop_counter() as counter:
        PhiStandardizer(6)(torch.randn(2, 6))
        PhiStandardizer(10)(torch.randn(2, 10, 3, 4))
    assert counter.get_total_flops() == 2 * phi_s_flops(6, 10, 12)
