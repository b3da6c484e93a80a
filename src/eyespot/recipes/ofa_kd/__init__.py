"""OFA-KD: every stage of the student speaks in logits."""

from eyespot.recipes.ofa_kd.recipe import OfaKdConfig, distill

__all__ = ["OfaKdConfig", "distill"]
