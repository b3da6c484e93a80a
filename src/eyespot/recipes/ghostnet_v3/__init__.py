"""GhostNetV3: branches while training, one convolution on the device."""

from typing import TYPE_CHECKING

from eyespot.lazy import lazy_names

if TYPE_CHECKING:
    from eyespot.recipes.ghostnet_v3.config import GhostNetV3Config
    from eyespot.recipes.ghostnet_v3.recipe import distill
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "eyespot.recipes.ghostnet_v3.config": ["GhostNetV3Config"],
            "eyespot.recipes.ghostnet_v3.recipe": ["distill"],
        },
    )

__all__ = ["GhostNetV3Config", "distill"]
