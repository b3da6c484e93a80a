"""VanillaKD: plain logits, a strong recipe and a long schedule."""

from typing import TYPE_CHECKING

from eyespot.lazy import lazy_names

if TYPE_CHECKING:
    from eyespot.recipes.vanilla_kd.config import VanillaKdConfig
    from eyespot.recipes.vanilla_kd.recipe import distill
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "eyespot.recipes.vanilla_kd.config": ["VanillaKdConfig"],
            "eyespot.recipes.vanilla_kd.recipe": ["distill"],
        },
    )

__all__ = ["VanillaKdConfig", "distill"]
