"""ShuffleNetV2 of torchvision, which timm lacks: `python/eyespot.encoders.shufflenet:shufflenet_v2?width=0.5`.

A student of the GhostNetV3 paper, with random weights. (For torchvision's own weights: `torchhub/pytorch/vision`.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torchvision import models

from eyespot.encoders.base import Encoder
from eyespot.encoders.forms.branches import add_branches
from eyespot.encoders.forms.fusing import fuse
from eyespot.features import Features

WIDTHS = {0.5: models.shufflenet_v2_x0_5, 1.0: models.shufflenet_v2_x1_0, 1.5: models.shufflenet_v2_x1_5}
WIDTHS[2.0] = models.shufflenet_v2_x2_0
STAGES = {"maxpool": 4, "stage2": 8, "stage3": 16, "stage4": 32}
"""Modules that end the stages, and their strides."""


class ShuffleNetEncoder(Encoder):
    """A ShuffleNetV2 as encoder.

    - patches: the map after the last 1x1 convolution, at 1/32 of the picture (1/16 with `stem_stride=1`).
    - summary: its mean.
    - logits: of the linear classifier, if there are classes.

    Args:
        model: torchvision's network.
        stem_stride: of its first convolution, 1 or 2.
        num_classes: outputs of its classifier; 0 for none.
    """

    def __init__(self, model: Any, stem_stride: int, num_classes: int) -> None:
        super().__init__(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        self.summary_dim = self.patch_dim = model.fc.in_features
        self.num_classes = num_classes
        self.stride = 16 * stem_stride
        self.default_size = (224, 224)
        model.conv1[0].stride = (stem_stride, stem_stride)
        model.fc = nn.Linear(self.summary_dim, num_classes) if num_classes else nn.Identity()
        model.feature_info = [  # as models of timm tell it
            {"module": stage, "reduction": reduction * stem_stride // 2} for stage, reduction in STAGES.items()
        ]
        self.model = model

    def _stages(self, images: Tensor) -> list[Tensor]:
        maps = [self.model.conv1(images)]
        for stage in STAGES:
            maps.append(getattr(self.model, stage)(maps[-1]))
        return maps[1:]

    def _encode(self, images: Tensor) -> Features:
        patches = self.model.conv5(self._stages(images)[-1])
        summary = patches.mean((2, 3))
        return Features(summary, patches, self.model.fc(summary) if self.num_classes else None)

    def intermediates(self, images: Tensor, taps: Sequence[int]) -> list[Tensor]:
        """See `Encoder.intermediates`; taps 0 (stem) to 3 (last stage), at 1/4, 1/8, 1/16 and 1/32 of the picture."""
        self.check(images)
        if any(tap not in range(len(STAGES)) for tap in taps):
            raise ValueError(f"{self.name} has taps 0 to {len(STAGES) - 1}, got {list(taps)}")
        maps = self._stages(self.normalised(images))
        return [maps[tap] for tap in taps]

    def run_time_form(self) -> ShuffleNetEncoder:
        """See `Encoder.run_time_form`."""
        return self._copy_in_run_time_form({self.model: fuse(self.model, self.default_size)})


def shufflenet_v2(
    width: float = 1.0, num_classes: int = 0, branches: int = 0, stem_stride: int = 2, fused: bool = False
) -> ShuffleNetEncoder:
    """ShuffleNetV2 (arXiv 1807.11164) with random weights.

    Args:
        width: 0.5, 1, 1.5 or 2.
        num_classes: outputs of a linear classifier; 0 for none.
        branches: depthwise and 1x1 convolutions train as a sum of so many, see `add_branches`; 0 leaves them.
        stem_stride: of the first convolution; 1 for pictures of 32 px or so.
        fused: in run-time form, see `fuse`.

    Raises:
        ValueError: a width that torchvision does not have, or another stride.
    """
    if width not in WIDTHS:
        raise ValueError(f"ShuffleNetV2 comes in the widths {', '.join(map(str, WIDTHS))}; got {width}")
    if stem_stride not in (1, 2):
        raise ValueError(f"stem_stride is 1 or 2, got {stem_stride}")
    encoder = ShuffleNetEncoder(WIDTHS[width](weights=None), stem_stride, num_classes)
    if branches:
        add_branches(encoder.model, branches)
    if fused:
        encoder.model = fuse(encoder.model)
    return encoder
