"""VanillaKD: plain logits, a strong recipe and a long schedule."""

from eyespot.recipes.vanilla_kd.config import VanillaKdConfig
from eyespot.recipes.vanilla_kd.recipe import distill

__all__ = ["VanillaKdConfig", "distill"]
