"""The settings of a recipe on the command line: the same words mean the same to every verb that takes them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import tyro

from eyespot.config import build, settings_of
from eyespot.recipes import RECIPES, Recipe
from eyespot.recipes.presets import preset_names, read_settings
from eyespot.specs import lookup

DEFAULT_PRESET = "laptop"


class RecipeArguments:
    """What a verb takes: the settings of a recipe, and arguments of its own.

    Args:
        verb: its name.
        about: what `eyespot VERB --help` says.
    """

    def __init__(self, verb: str, about: str) -> None:
        self.verb, self.about = verb, about
        self._parser = argparse.ArgumentParser(f"eyespot {verb}", add_help=False, allow_abbrev=False)
        self._parser.add_argument("recipe")
        self._parser.add_argument("--preset", nargs="+")
        self._parser.add_argument("--config", type=Path)
        self._helps: list[str] = []

    def add(self, name: str, about: str, **options: Any) -> None:
        """One more argument, as argparse's `add_argument` takes it; `about` goes into the help text."""
        self._parser.add_argument(name, **options)
        self._helps.append(f"{name} {about}" if about.partition(":")[0].isupper() else f"{name}: {about}")

    def read(self, arguments: Sequence[str]) -> tuple[Recipe, Any, argparse.Namespace] | None:
        """Parses a command line.

        Returns:
            The recipe, its validated configuration, and the verb's own arguments by name; None if only help was wanted,
            which then has been printed.

        Raises:
            ValueError: no such recipe, preset or setting.
        """
        if not arguments or arguments[0] in ("-h", "--help"):
            working = ", ".join(name for name, recipe in RECIPES.items() if recipe.config)
            print(self.about)
            print(f"Recipes: {working}. `eyespot {self.verb} RECIPE --help` shows all settings.")
            return None
        known, rest = self._parser.parse_known_args(arguments)
        recipe = lookup(RECIPES, known.recipe, "recipe")
        config_class = recipe.config_class
        presets = known.preset or ([] if known.config else [DEFAULT_PRESET])
        settings = read_settings(recipe.name, presets, known.config)
        source = " + ".join([*presets, *([str(known.config)] if known.config else [])])
        config = tyro.cli(
            config_class,
            prog=f"eyespot {self.verb} {recipe.name}",
            description=self._description(recipe),
            default=build(config_class, settings, source),
            args=_as_tyro_wants(rest, settings_of(config_class)),
        )
        return recipe, config, known

    def _description(self, recipe: Recipe) -> str:
        return (
            f"{recipe.about} ({recipe.paper}). Beside the settings below: {'; '.join(self._helps)}; "
            f"--preset {{{', '.join(preset_names(recipe.name))}}} (several are laid over one another; default "
            f"{DEFAULT_PRESET}), --config FILE (a YAML file as `eyespot recipes {recipe.name}` prints it)."
        )


def _as_tyro_wants(arguments: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
    """`--data A B` is short for `--data.sources A B`; null means None, and so does none where no choice has that name.

    Args:
        arguments: words of the command line.
        settings: see `settings_of`.
    """
    words: list[str] = []
    setting = ""
    for argument in arguments:
        for word in argument.split("=", 1) if argument.startswith("--") else [argument]:
            setting = word.removeprefix("--").replace("-", "_") if word.startswith("--") else setting
            is_none = word == "null" or (word == "none" and _may_be_left_out(settings.get(setting)))
            words.append("None" if is_none else "--data.sources" if word == "--data" else word)
    return words


def _may_be_left_out(annotation: Any) -> bool:
    """Whether a setting may be None and has no choice that is called none."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else ()
    choices = {choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)}
    return NoneType in kinds and "none" not in choices
