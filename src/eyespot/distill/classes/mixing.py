"""Mixup and CutMix: pictures of a batch mixed with one another, and the soft labels that belong to them.

Mixup is a weighted sum of two pictures (Zhang et al., arXiv 1710.09412), CutMix lays a rectangle of one on the other
(Yun et al., arXiv 1905.04899). As timm does by default, one draw holds for a whole batch and picture i is mixed with
picture B - 1 - i; timm's functions draw the rectangle and mix the labels.
"""

from __future__ import annotations

import torch
from timm.data.mixup import cutmix_bbox_and_lam, mixup_target
from torch import Tensor

from eyespot.distill.classes.config import MixConfig
from eyespot.randomness import Key, library_draws, numpy_generator


def mix(
    images: Tensor, labels: Tensor | None, num_classes: int, config: MixConfig, *keys: Key
) -> tuple[Tensor, Tensor | None]:
    """Mixes the pictures of a batch; a pure function of its arguments.

    Teacher and student must see the mixed pictures, both the same. Any batch size will do: the middle picture of an odd
    batch, and so that of a batch of one, is mixed with itself. Where a batch is computed in parts (micro-batches,
    processes), each part is mixed within itself, all by the same draw.

    Args:
        images: [B, 3, H, W] in [0, 1], left as they are.
        labels: int64 [B], below `num_classes`; -1 for a picture without a label. None if there are none at all.
        num_classes: K, how many classes there are.
        config: what may be drawn.
        keys: what names the draw, e.g. seed and step.

    Returns:
        The pictures, still in [0, 1], and targets float32 [B, K] whose rows sum to 1, or to 0 where the picture or the
        one mixed into it has no label (see `is_labelled`; ours). None for `labels` None.
    """
    images, share = _mix_images(images, config, *keys)
    if labels is None:
        return images, None
    targets = mixup_target(labels.clamp(min=0), num_classes, share, config.label_smoothing)
    known = labels >= 0
    if share < 1:
        known = known & known.flip(0)
    return images, targets * known[:, None]


def is_labelled(targets: Tensor) -> Tensor:
    """Which rows of the targets of `mix` belong to a picture with a label: bool [B]."""
    return targets.sum(1) > 0.5


def _mix_images(images: Tensor, config: MixConfig, *keys: Key) -> tuple[Tensor, float]:
    """The mixed pictures, and the share in each of the picture that was there."""
    generator = numpy_generator("mix", *keys)
    happens, switch = generator.random(2)
    if happens >= config.probability or not (config.mixup or config.cutmix):
        return images, 1.0
    cuts = switch < config.switch_probability if config.mixup and config.cutmix else config.cutmix > 0
    alpha = config.cutmix if cuts else config.mixup
    share = float(generator.beta(alpha, alpha))
    if not cuts:
        # `lerp` never leaves the range of the two, as a sum of products may by a rounding
        return torch.lerp(images.flip(0), images, share), share
    with library_draws("cutmix", *keys):
        (top, bottom, left, right), share = cutmix_bbox_and_lam(images.shape, share)
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images.flip(0)[:, :, top:bottom, left:right]
    return mixed, float(share)
