"""Mixup and CutMix: pictures of a batch mixed with one another, and the soft labels that belong to them.

Mixup is a weighted sum of two pictures (Zhang et al., arXiv 1710.09412), CutMix lays a rectangle of one on the other
(Yun et al., arXiv 1905.04899). As timm does by default, one draw holds for a whole batch and picture i is mixed with
picture B - 1 - i; timm draws the rectangle. B counts the pictures of a step over all processes, so that what a picture
is mixed with does not depend on how the batch is cut (ours; timm mixes within each process).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from timm.data.mixup import cutmix_bbox_and_lam, one_hot
from torch import Tensor

from eyespot.distill.classes.config import MixConfig
from eyespot.randomness import Key, library_draws, numpy_generator


def mix(
    images: Tensor,
    labels: Tensor | None,
    num_classes: int,
    config: MixConfig,
    *keys: Key,
    partners: tuple[Tensor, Tensor | None] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Mixes the pictures of a batch; a pure function of its arguments.

    Teacher and student must see the mixed pictures, both the same. Any batch size will do: the middle picture of an odd
    batch, and so that of a batch of one, is mixed with itself. A part of a batch is mixed as it is within the whole,
    given the partners of its pictures.

    Args:
        images: [B, 3, H, W] in [0, 1], left as they are.
        labels: int64 [B], below `num_classes`; -1 for a picture without a label. None if there are none at all.
        num_classes: K, how many classes there are.
        config: what may be drawn.
        keys: what names the draw, e.g. seed and step.
        partners: images and labels that these are mixed with, see `partners_of`; None if this is the whole batch.

    Returns:
        The pictures, still in [0, 1], and targets float32 [B, K] whose rows sum to 1, or to 0 where the picture or the
        one mixed into it has no label (see `is_labelled`; ours). None for `labels` None.
    """
    others, other_labels = partners or (images.flip(0), None if labels is None else labels.flip(0))
    images, share = _mix_images(images, others, config, *keys)
    if labels is None or other_labels is None:
        return images, None
    targets = _targets(labels, num_classes, config) * share
    targets = targets + _targets(other_labels, num_classes, config) * (1.0 - share)
    known = labels >= 0
    if share < 1:
        known = known & (other_labels >= 0)
    return images, targets * known[:, None]


def partners_of(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """`images` and `labels` of the pictures that those of a process's batch are mixed with.

    Args:
        batch: a `PictureBatch`, not yet in micro-batches; without `partner` it is that of all processes.
    """
    entries = {name: batch[name] for name in ("images", "labels") if name in batch}
    order = batch.get("partner")
    if order is None:
        return {name: value.flip(0) for name, value in entries.items()}
    guests = batch.get("guests", {})
    return {
        name: torch.cat([value, guests[name]])[order] if guests else value[order] for name, value in entries.items()
    }


def is_labelled(targets: Tensor) -> Tensor:
    """Which rows of the targets of `mix` belong to a picture with a label: bool [B]."""
    return targets.sum(1) > 0.5


def mixes(config: MixConfig) -> bool:
    """Whether pictures are ever mixed."""
    return config.probability > 0 and (config.mixup > 0 or config.cutmix > 0)


def _targets(labels: Tensor, num_classes: int, config: MixConfig) -> Tensor:
    """float32 [B, K], smoothed as timm does; those of pictures without a label mean nothing."""
    off = config.label_smoothing / num_classes
    targets: Tensor = one_hot(labels.clamp(min=0), num_classes, 1.0 - config.label_smoothing + off, off)
    return targets


def _mix_images(images: Tensor, others: Tensor, config: MixConfig, *keys: Key) -> tuple[Tensor, float]:
    """The mixed pictures, and the share in each of the picture that was there."""
    generator = numpy_generator("mix", *keys)
    happens, switch = generator.random(2)
    if happens >= config.probability or not mixes(config):
        return images, 1.0
    cuts = switch < config.switch_probability if config.mixup and config.cutmix else config.cutmix > 0
    alpha = config.cutmix if cuts else config.mixup
    share = float(generator.beta(alpha, alpha))
    if not cuts:
        # `lerp` never leaves the range of the two, as a sum of products may by a rounding
        return torch.lerp(others, images, share), share
    with library_draws("cutmix", *keys):
        (top, bottom, left, right), share = cutmix_bbox_and_lam(images.shape, share)
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
    return mixed, float(share)
