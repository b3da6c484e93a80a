"""Changes to a timm model that timm has no argument for: stride of the stem, branches, run-time form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from timm.models import get_model_input_config
from torch import nn

from eyespot.encoders.forms.branches import add_branches
from eyespot.encoders.forms.fusing import fuse


@dataclass(frozen=True)
class TimmForm:
    """What becomes of a timm model, in this order. Kept with a saved model's arguments, so that it is built so again.

    Attributes:
        stem_stride: of the first convolution; 1 halves the stride of all maps, for pictures of 32 px or so. None leaves
            it. (GhostNetV3 notes: their experiment at 32 px needs it, as the last gates halve the map once more.)
        branches: depthwise and 1x1 convolutions train as a sum of so many, see `branches.add_branches`. 0 leaves them.
        fused: the run-time form, see `fusing.fuse`.
    """

    stem_stride: int | None = None
    branches: int = 0
    fused: bool = False

    @classmethod
    def of(cls, args: Mapping[str, Any]) -> tuple[TimmForm, dict[str, Any]]:
        """The form that arguments ask for, and the other arguments."""
        own = {field.name for field in fields(cls)}
        return cls(**{key: args[key] for key in args if key in own}), {key: args[key] for key in args if key not in own}

    @property
    def args(self) -> dict[str, Any]:
        """The inverse of `of`: what is not as timm has it."""
        return {key: value for key, value in asdict(self).items() if value}

    def check(self, name: str, has_weights: bool) -> None:
        """Refuses what cannot be.

        Args:
            name: of the model.
            has_weights: whether it comes with trained weights.

        Raises:
            ValueError: branches, which start from random weights, in a trained model.
        """
        if self.branches and has_weights:
            raise ValueError(
                f"{name}: branches= adds convolutions with random weights to what timm's weights were trained for; "
                "say pretrained=false, and train it (a run's own weights come back with run/FOLDER)"
            )

    def apply(self, model: Any, name: str) -> Any:
        """The model in this form.

        Raises:
            ValueError: another stride than 1 or 2, a model without such a stem, or see `add_branches`.
        """
        size: tuple[int, int] = get_model_input_config(model)["input_size"][1:]
        if self.stem_stride is not None:
            set_stem_stride(model, self.stem_stride, name)
        if self.branches:
            add_branches(model, self.branches, size=size)
        return fuse(model, size) if self.fused else model


def set_stem_stride(model: Any, stride: int, name: str) -> None:
    """Sets the stride of a model's first convolution, in place.

    Raises:
        ValueError: another stride than 1 or 2, or a model without a stem that is one convolution of stride 2.
    """
    stem = getattr(model, "conv_stem", None)
    if not isinstance(stem, nn.Conv2d) or tuple(stem.stride) != (2, 2):
        raise ValueError(
            f"{name}: stem_stride= is for models whose stem is one convolution of stride 2 called conv_stem, such as "
            "GhostNet, MobileNetV2 to V4 and EfficientNet"
        )
    if stride not in (1, 2):
        raise ValueError(f"{name}: stem_stride is 1 or 2, got {stride}")
    stem.stride = (stride, stride)
    for stage in model.feature_info:
        stage["reduction"] = stage["reduction"] * stride // 2
