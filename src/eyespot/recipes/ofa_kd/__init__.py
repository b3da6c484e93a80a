"""OFA-KD: every stage of the student speaks in logits."""

from typing import TYPE_CHECKING

from eyespot.lazy import lazy_names

if TYPE_CHECKING:
    from eyespot.recipes.ofa_kd.config import OfaKdConfig
    from eyespot.recipes.ofa_kd.recipe import distill
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "eyespot.recipes.ofa_kd.config": ["OfaKdConfig"],
            "eyespot.recipes.ofa_kd.recipe": ["distill"],
        },
    )

__all__ = ["OfaKdConfig", "distill"]
