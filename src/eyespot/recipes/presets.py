"""Presets: YAML files beside the recipes, and configuration files of users, read into typed configurations."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from eyespot.config import ConfigError, merged
from eyespot.files import read_text
from eyespot.specs import suggestion


def preset_names(recipe: str) -> list[str]:
    """The presets of a recipe."""
    return sorted(file.name.removesuffix(".yaml") for file in _folder(recipe).iterdir() if file.name.endswith(".yaml"))


def preset_text(recipe: str, name: str) -> str:
    """A preset's YAML as it is written, with comments.

    Raises:
        ConfigError: no such preset; names the nearest.
    """
    known = preset_names(recipe)
    if name not in known:
        raise ConfigError(f"{recipe} has no preset {name!r}; {suggestion(name, known)}")
    return (_folder(recipe) / f"{name}.yaml").read_text(encoding="utf-8")


def read_settings(recipe: str, presets: Sequence[str] = (), file: str | Path | None = None) -> dict[str, Any]:
    """Presets laid over one another from left to right, then a file, as plain nested settings.

    What `extends: PRESET` names in the first of them is the ground. Later presets are laid on top without theirs, so
    that `laptop direct` is the laptop's sizes with the direct method.

    Raises:
        ConfigError: an unknown preset, or a file that is not a YAML mapping.
        FileNotFoundError: no such file.
    """
    layers = [_mapping(preset_text(recipe, name), name) for name in presets]
    if file is not None:
        layers.append(_mapping(read_text(file), str(file)))
    settings: dict[str, Any] = {}
    for number, layer in enumerate(layers):
        ground = layer.pop("extends", None)
        if ground is not None and number == 0:
            settings = read_settings(recipe, [ground])
        settings = merged(settings, layer)
    return settings


def _folder(recipe: str) -> Any:
    return files("eyespot.recipes") / recipe / "presets"


def _mapping(text: str, source: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{source} must hold settings (key: value), it holds {type(content).__name__}")
    return content
