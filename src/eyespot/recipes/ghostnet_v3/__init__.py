"""GhostNetV3: branches while training, one convolution on the device."""

from eyespot.recipes.ghostnet_v3.config import GhostNetV3Config
from eyespot.recipes.ghostnet_v3.recipe import distill

__all__ = ["GhostNetV3Config", "distill"]
