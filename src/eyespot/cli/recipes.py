"""The verbs of the command line that take a recipe's settings: the same words mean the same in all of them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tyro

from eyespot.config import build
from eyespot.recipes import RECIPES, Recipe
from eyespot.recipes.presets import preset_names, read_settings
from eyespot.specs import lookup

DEFAULT_PRESET = "laptop"

NONE_IS_A_CHOICE = ("--standardizer", "--student.method")
"""Settings with a value that is called none."""


def distill(arguments: Sequence[str]) -> None:
    """Train students by a recipe; the same command again continues an interrupted run.

    eyespot distill eupe [--preset P ... | --config FILE] --teachers SPEC ... --data SOURCE ... --output RUN
    """
    own = OwnArguments("distill", distill.__doc__ or "")
    own.add("--output", "RUN: the run folder", type=Path)
    read = own.read(arguments)
    if read is None:
        return
    recipe, config, known = read
    if known.output is None:
        raise ValueError("--output RUN is missing: name the folder of the run")
    from lightning_fabric.utilities.rank_zero import rank_zero_only

    made = recipe.distill(config, known.output)
    if rank_zero_only.rank == 0:
        _say_what_was_made(known.output, made)


def _say_what_was_made(output: Path, made: Path) -> None:
    several = made == output / "students"
    folders = sorted(made.iterdir()) if several else [output]
    where = "students are" if several else "student is"
    print(f"\nThe {where} in {made}, the report in {output / 'report.html'}.")
    for folder in folders:
        print(f'Use it: eyespot.load_encoder("run/{folder}")')


class OwnArguments:
    """A verb's own arguments beside the settings of a recipe.

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
            args=_as_tyro_wants(rest),
        )
        # Once more through pydantic, because tyro builds the class field by field.
        return recipe, build(config_class, asdict(config), "settings"), known

    def _description(self, recipe: Recipe) -> str:
        return (
            f"{recipe.about} ({recipe.paper}). Beside the settings below: {'; '.join(self._helps)}; "
            f"--preset {{{', '.join(preset_names(recipe.name))}}} (several are laid over one another; default "
            f"{DEFAULT_PRESET}), --config FILE (a YAML file as `eyespot recipes {recipe.name}` prints it)."
        )


def _as_tyro_wants(arguments: Sequence[str]) -> list[str]:
    """`--data A B` is short for `--data.sources A B`; null and none both mean None, but where none is a choice."""
    words: list[str] = []
    setting = ""
    for argument in arguments:
        for word in argument.split("=", 1) if argument.startswith("--") else [argument]:
            setting = word if word.startswith("--") else setting
            is_none = word == "null" or (word == "none" and setting not in NONE_IS_A_CHOICE)
            words.append("None" if is_none else "--data.sources" if word == "--data" else word)
    return words
