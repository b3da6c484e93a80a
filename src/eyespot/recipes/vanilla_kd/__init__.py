"""VanillaKD: plain logits, a strong recipe and a long schedule."""

from eyespot.recipes.vanilla_kd.recipe import VanillaKdConfig, distill

__all__ = ["VanillaKdConfig", "distill"]
