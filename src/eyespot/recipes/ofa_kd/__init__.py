"""OFA-KD: every stage of the student speaks in logits."""

from eyespot.recipes.ofa_kd.config import OfaKdConfig
from eyespot.recipes.ofa_kd.recipe import distill

__all__ = ["OfaKdConfig", "distill"]
