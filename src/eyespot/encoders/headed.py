"""A linear class head on the summary of any encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from eyespot.encoders.base import Encoder, checked_names, new_head
from eyespot.encoders.kinds import build_encoder, config_of, is_built_by_its_spec
from eyespot.features import Features


class HeadedEncoder(Encoder):
    """An encoder and a linear layer on its summary, which fills `Features.logits`.

    All else is as in the encoder: name, widths, sizes, normalisation, licence, lineage, adapters.

    Args:
        encoder: any encoder; its own logits, if it has some, are replaced.
        num_classes: K, outputs of the new head, at least 1. Its weights are drawn as `nn.Linear` draws them.
        class_names: names of those outputs in order.

    Raises:
        ValueError: no classes, or another number of names.
    """

    def __init__(self, encoder: Encoder, num_classes: int, class_names: Sequence[str] | None = None) -> None:
        if num_classes < 1:
            raise ValueError(f"{encoder.name}: a class head needs at least one class, got {num_classes}")
        super().__init__(encoder.mean.flatten().tolist(), encoder.std.flatten().tolist())
        self.encoder = encoder
        self.head = nn.Linear(encoder.summary_dim, num_classes)
        self.to(encoder.device)
        self.num_classes = num_classes
        self.class_names = checked_names(class_names, num_classes, encoder.name)
        self.name, self.license, self.origin = encoder.name, encoder.license, encoder.origin
        self.channel_order = encoder.channel_order
        self.made_up = (*encoder.made_up, new_head(num_classes))
        self.summary_dim, self.patch_dim, self.stride = encoder.summary_dim, encoder.patch_dim, encoder.stride
        self.native_size, self.default_size = encoder.native_size, encoder.default_size
        self.lineage, self.adapters = encoder.lineage, encoder.adapters
        self.level_taps = encoder.level_taps

    def forward(self, images: Tensor) -> Features:
        """See `Encoder.forward`."""
        return self._with_logits(self.encoder(images))

    def _encode(self, images: Tensor) -> Features:
        return self._with_logits(self.encoder._encode(images))

    def _with_logits(self, features: Features) -> Features:
        return dataclasses.replace(features, logits=self.head(features.summary))

    def intermediates(self, images: Tensor, taps: Sequence[int]) -> list[Tensor]:
        """See `Encoder.intermediates`."""
        return self.encoder.intermediates(images, taps)

    def size_error(self, height: int, width: int) -> str | None:
        """See `Encoder.size_error`."""
        return self.encoder.size_error(height, width)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that the model's authors exclude from weight decay."""
        return {f"encoder.{name}" for name in self.encoder.no_weight_decay()}

    def get_config(self, license: str | None = None) -> dict[str, Any]:
        """See `Encoder.get_config`; that of the encoder itself is left out where the spec says it all."""
        config = super().get_config(license)
        config["eyespot"]["head"] = "linear"
        if not is_built_by_its_spec(self.encoder):
            config["eyespot"]["encoder"] = config_of(self.encoder, license)
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> HeadedEncoder:
        """See `Encoder.from_config`."""
        section = dict(config["eyespot"])
        del section["head"]
        return cls(build_encoder(section.get("encoder") or {"eyespot": section}), section["num_classes"])

    def run_time_form(self) -> HeadedEncoder:
        """See `Encoder.run_time_form`."""
        return self._copy_in_run_time_form({self.encoder: self.encoder.run_time_form()})

    def setting(self, features_only: bool = False) -> dict[str, Any]:
        """See `Encoder.setting`."""
        return self.encoder.setting(features_only)

    def with_new_head(self, num_classes: int) -> HeadedEncoder:
        """See `Encoder.with_new_head`."""
        return HeadedEncoder(self.encoder, num_classes)
