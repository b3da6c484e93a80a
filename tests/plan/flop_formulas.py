"""Closed formulas of what a plan counts. The plan itself counts operations one by one; these say why they are so many.

An operation is one floating-point addition or multiplication; a multiply-accumulate is two. Only matrix products and
convolutions count, as in torch's counter.
"""

from __future__ import annotations


def vit_forward_flops(
    tokens: int, width: int, depth: int, hidden: int, patches: int, patch_inputs: int, gated: bool = False
) -> int:
    """Forward pass of a plain vision transformer for one picture.

    Each block multiplies every token by 4 width^2 weights of the attention (query, key, value, output) and by 2 width x
    hidden of the MLP (3 if gated), and every token with every other one twice (scores, values). Before them, each patch
    is multiplied by patch_inputs x width weights.

    Args:
        tokens: per picture, class and register tokens included.
        width: of a token.
        depth: blocks.
        hidden: width inside the MLP.
        patches: tokens that come from patches.
        patch_inputs: numbers in a patch, 3 x side^2.
        gated: whether the MLP has a gate (SwiGLU).
    """
    weights = 4 * width**2 + (3 if gated else 2) * width * hidden
    block = 2 * tokens * weights + 4 * tokens**2 * width
    return depth * block + 2 * patches * patch_inputs * width


def vit_backward_flops(
    tokens: int, width: int, depth: int, hidden: int, patches: int, patch_inputs: int, gated: bool = False
) -> int:
    """Backward pass of the same: twice the forward pass, but for two things.

    Each product with weights has two gradients, of weights and of inputs. Fused attention computes its scores once
    more: five products in place of two. And nobody asks for the gradient of the pictures.
    """
    weights = 4 * width**2 + (3 if gated else 2) * width * hidden
    block = 4 * tokens * weights + 10 * tokens**2 * width
    return depth * block + 2 * patches * patch_inputs * width


def head_forward_flops(student: tuple[int, int], hidden: int, teacher: tuple[int, int], patches: int) -> int:
    """Both adapter heads of one teacher for one picture: two products for the summary, two for each patch.

    Args:
        student: (summary, patch) widths of the student.
        hidden: width of the heads.
        teacher: (summary, patch) widths of the teacher.
        patches: of the student's grid.
    """
    return 2 * hidden * (student[0] + teacher[0]) + 2 * patches * hidden * (student[1] + teacher[1])


def head_backward_flops(student: tuple[int, int], hidden: int, teacher: tuple[int, int], patches: int) -> int:
    """Twice the forward pass: gradients of weights and of inputs."""
    return 2 * head_forward_flops(student, hidden, teacher, patches)


def head_parameters(student: tuple[int, int], hidden: int, teacher: tuple[int, int]) -> int:
    """Both adapter heads of one teacher: two matrices without bias each, and the norm between them."""
    return sum(hidden * (inner + outer) + 2 * hidden for inner, outer in zip(student, teacher, strict=True))


def phi_s_flops(summary: int, patch: int, patches: int) -> int:
    """Standardizing one picture's targets by PHI-S: one rotation of the summary, one of each patch."""
    return 2 * summary**2 + 2 * patches * patch**2
