"""The verbs that show recipes and train by them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
import yaml
from rich.console import Console
from rich.table import Table

from eyespot.cli.settings import DEFAULT_PRESET, RecipeArguments
from eyespot.config import as_plain, build
from eyespot.recipes import RECIPES
from eyespot.recipes.presets import preset_names, read_settings
from eyespot.specs import lookup


def recipes(
    name: Annotated[str | None, tyro.conf.Positional] = None, preset: tuple[str, ...] = (DEFAULT_PRESET,)
) -> None:
    """Show which recipes there are, or one recipe's full configuration as YAML.

    Args:
        name: the recipe whose configuration to print.
        preset: which of its presets; several are laid over one another.
    """
    if name is not None:
        recipe = lookup(RECIPES, name, "recipe")
        config = build(recipe.config_class, read_settings(recipe.name, preset), " + ".join(preset))
        print(yaml.safe_dump(as_plain(config), sort_keys=False), end="")
        return
    table = Table("recipe", "what goes into what", "paper", "status", "presets")
    for recipe in RECIPES.values():
        presets = ", ".join(preset_names(recipe.name)) if recipe.config else ""
        table.add_row(recipe.name, recipe.about, recipe.paper, recipe.status, presets)
    Console().print(table)


def distill(arguments: Sequence[str]) -> None:
    """Train students by a recipe; the same command again continues an interrupted run.

    eyespot distill eupe [--preset P ... | --config FILE] --teachers SPEC ... --data SOURCE ... --output RUN
    """
    own = RecipeArguments("distill", distill.__doc__ or "")
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
