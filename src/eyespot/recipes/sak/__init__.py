"""SAK: a multi-task model that keeps what each teacher of a committee is good at."""

from typing import TYPE_CHECKING

from eyespot.lazy import lazy_names

if TYPE_CHECKING:
    from eyespot.recipes.sak.config import SakConfig
    from eyespot.recipes.sak.recipe import distill
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "eyespot.recipes.sak.config": ["SakConfig"],
            "eyespot.recipes.sak.recipe": ["distill"],
        },
    )

__all__ = ["SakConfig", "distill"]
