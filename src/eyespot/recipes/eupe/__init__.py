"""EUPE: many experts -> one large proxy -> one small student."""

from typing import TYPE_CHECKING

from eyespot.lazy import lazy_names

if TYPE_CHECKING:
    from eyespot.recipes.eupe.config import EupeConfig, StudentConfig, outline
    from eyespot.recipes.eupe.recipe import distill
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "eyespot.recipes.eupe.config": ["EupeConfig", "StudentConfig", "outline"],
            "eyespot.recipes.eupe.recipe": ["distill"],
        },
    )

__all__ = ["EupeConfig", "StudentConfig", "distill", "outline"]
