"""Recipes: one published method each, end to end. `RECIPES` says which there are and how far each is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eyespot.runs.outline import StageOutline


@dataclass(frozen=True)
class Recipe:
    """One method of the house.

    Attributes:
        name: as on the command line.
        about: one line.
        paper: where it was published.
        config: name of its configuration class; empty if it is not built yet.
    """

    name: str
    about: str
    paper: str
    config: str = ""

    @property
    def status(self) -> str:
        """Either "working" or "planned"."""
        return "working" if self.config else "planned"

    @property
    def config_class(self) -> Any:
        """The configuration class."""
        return getattr(self._part("config"), self.config)

    @property
    def distill(self) -> Callable[[Any, str | Path], Path]:
        """Trains: (configuration, run folder) -> the student's folder."""
        function: Callable[[Any, str | Path], Path] = self._part("recipe").distill
        return function

    @property
    def outline(self) -> Callable[[Any], list[StageOutline]]:
        """What a configuration is going to do, stage by stage, without loading anything.

        Raises:
            ValueError: the recipe distils no features, which is what plans and caches know about.
        """
        function: Callable[[Any], list[StageOutline]] | None = getattr(self._part("config"), "outline", None)
        if function is None:
            able = ", ".join(name for name, other in RECIPES.items() if other.config and other.distils_features)
            raise ValueError(
                f"`eyespot plan` and `eyespot cache` know recipes that distil features of an encoder ({able}), not "
                f"{self.name}"
            )
        return function

    @property
    def distils_features(self) -> bool:
        """Whether it can be planned and its teachers' features cached."""
        return hasattr(self._part("config"), "outline")

    def _part(self, file: str) -> Any:
        """A file of the recipe's folder: `config` (what there is to decide) or `recipe` (the method)."""
        if not self.config:
            raise ValueError(f"the recipe {self.name!r} is planned, not built yet; `eyespot recipes` shows which are")
        return import_module(f"{__name__}.{self.name}.{file}")


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "eupe",
            "a committee of encoders -> a large proxy -> a compact encoder",
            "EUPE, arXiv 2603.22387",
            "EupeConfig",
        ),
        Recipe(
            "sak",
            "a committee of encoders -> a multi-task model that keeps each one's bias",
            "SAK, arXiv 2410.14633",
            "SakConfig",
        ),
        Recipe(
            "vanilla_kd",
            "a classifier -> a compact classifier, plain logits, long schedule",
            "VanillaKD, arXiv 2305.15781",
            "VanillaKdConfig",
        ),
        Recipe(
            "ofa_kd",
            "a classifier -> a compact classifier of another family",
            "OFA-KD, arXiv 2310.19444",
            "OfaKdConfig",
        ),
        Recipe(
            "ghostnet_v3",
            "a classifier -> a re-parameterised compact CNN",
            "GhostNetV3, arXiv 2404.11202",
            "GhostNetV3Config",
        ),
        Recipe("cdfkd_mfs", "several classifiers, no data -> one multi-header classifier", "CDFKD-MFS"),
        Recipe("devit", "a large ViT -> several small ViTs on several devices", "DeViT"),
        Recipe("mahppo", "a network and a radio link -> a split-inference plan", "MAHPPO"),
        Recipe("adem_vl", "an encoder and a language model -> a vision-language model", "ADEM-VL, arXiv 2410.17779"),
        Recipe("delvm", "picture sequences -> an autoregressive vision model", "DeLVM, arXiv 2402.04841"),
        Recipe(
            "sam_diffsr",
            "a segmenter at training time -> a super-resolution diffusion model",
            "SAM-DiffSR, arXiv 2402.17133",
        ),
    )
}
