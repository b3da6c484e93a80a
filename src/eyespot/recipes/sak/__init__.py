"""SAK: a multi-task model that keeps what each teacher of a committee is good at."""

from eyespot.recipes.sak.config import SakConfig
from eyespot.recipes.sak.recipe import distill

__all__ = ["SakConfig", "distill"]
