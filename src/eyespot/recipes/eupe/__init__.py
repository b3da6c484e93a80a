"""EUPE: many experts -> one large proxy -> one small student."""

from eyespot.recipes.eupe.recipe import EupeConfig, distill, outline

__all__ = ["EupeConfig", "distill", "outline"]
