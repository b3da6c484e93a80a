"""Stems: the ViTs that adapter paths can be laid along."""

from __future__ import annotations

from typing import Any

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from eyespot.encoders.base import Encoder
from eyespot.encoders.sources.timm import TimmEncoder

LEVELS = 4


def prepared_stem(stem: Encoder) -> TimmEncoder:
    """A ViT as a stem: without its final norm and its class head, in place.

    Raises:
        ValueError: another kind of model; says what would be right.
    """
    checked = _checked_stem(stem)
    vit: Any = checked.model
    if checked.num_classes:
        checked.reset_classifier(0)
    vit.norm, vit.fc_norm = nn.Identity(), nn.Identity()
    checked.model_args = {**checked.model_args, "final_norm": False}
    return checked


def default_levels(blocks: int) -> tuple[int, ...]:
    """The blocks that end the four quarters, counted from 0: 2, 5, 8, 11 of 12 and 5, 11, 17, 23 of 24.

    Quarters are rounded up where the blocks cannot be divided by four (ours).

    Raises:
        ValueError: fewer than four blocks.
    """
    if blocks < LEVELS:
        raise ValueError(f"a stem needs at least {LEVELS} blocks to tap, it has {blocks}")
    return tuple(-(-blocks * quarter // LEVELS) - 1 for quarter in range(1, LEVELS + 1))


def _checked_stem(stem: Encoder) -> TimmEncoder:
    """The stem, if it is one that paths can be laid along."""
    vit: Any = getattr(stem, "model", None)
    if not isinstance(stem, TimmEncoder) or not isinstance(vit, VisionTransformer):
        problem = "is no plain vision transformer of timm"
    elif vit.cls_token is None or vit.attn_pool is not None:
        problem = "has no class token that serves as summary"
    elif vit.pos_embed is None:
        problem = "has no learned position embedding"
    elif not isinstance(vit.patch_drop, nn.Identity):
        problem = "drops patches, so that there are no maps (leave out patch_drop_rate)"
    else:
        return stem
    raise ValueError(f"{stem.name} {problem}; a stem is a ViT such as timm/vit_small_patch16_384")
