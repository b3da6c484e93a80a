"""EUPE: many experts -> one large proxy -> one small student."""

from eyespot.recipes.eupe.config import EupeConfig, StudentConfig, outline
from eyespot.recipes.eupe.recipe import distill

__all__ = ["EupeConfig", "StudentConfig", "distill", "outline"]
