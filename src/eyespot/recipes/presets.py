"""Presets: YAML files beside the recipes, and configuration files of users, read into typed configurations."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

Config = TypeVar("Config")


class ConfigError(ValueError):
    """A configuration that cannot be used; the message lists every fault."""


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
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
        raise ConfigError(f"{recipe} has no preset {name!r}; {hint}")
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
        layers.append(_mapping(Path(file).read_text(encoding="utf-8"), str(file)))
    settings: dict[str, Any] = {}
    for number, layer in enumerate(layers):
        ground = layer.pop("extends", None)
        if ground is not None and number == 0:
            settings = read_settings(recipe, [ground])
        settings = merged(settings, layer)
    return settings


def build(config_class: type[Config], settings: Mapping[str, Any], source: str) -> Config:
    """Validates settings into a configuration.

    Args:
        config_class: a pydantic dataclass.
        settings: nested plain values.
        source: where they come from, for the message.

    Raises:
        ConfigError: lists every fault; a misspelt key is answered with the nearest right one.
    """
    try:
        return TypeAdapter(config_class).validate_python(dict(settings))
    except ValidationError as error:
        raise ConfigError(f"{source}:\n" + explain(error, config_class)) from None


def explain(error: ValidationError, config_class: type) -> str:
    """Pydantic's faults as one line each, in the words of the configuration."""
    lines = []
    for fault in error.errors():
        path = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            message = "no such setting" + _suggestion([str(part) for part in fault["loc"]], config_class)
        elif fault["type"] in ("missing", "missing_argument"):
            message = "must be given"
        elif fault["input"] is not None and not isinstance(fault["input"], dict):
            message += f" (got {fault['input']!r})"
        lines.append(f"  {path or 'configuration'}: {message}")
    return "\n".join(lines)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested mappings, the second laid over the first; anything but a mapping is replaced as a whole."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def _folder(recipe: str) -> Any:
    return files("eyespot.recipes") / "presets" / recipe


def _mapping(text: str, source: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{source} must hold settings (key: value), it holds {type(content).__name__}")
    return content


def _suggestion(wrong: list[str], config_class: Any) -> str:
    """The setting of the same place that looks most like a misspelt one, or else the one of another place."""
    paths = _paths(config_class)
    beside = [path[-1] for path in paths if list(path[:-1]) == wrong[:-1]]
    if near := difflib.get_close_matches(wrong[-1], beside, n=1):
        return f"; did you mean {near[0]!r}?"
    places: dict[str, str] = {}
    for path in paths:
        places.setdefault(path[-1], ".".join(path))
    if near := difflib.get_close_matches(wrong[-1], places, n=1):
        return f"; did you mean {places[near[0]]!r}?"
    return ""


def _paths(config_class: Any, place: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Where the settings of a configuration are, those of the configurations inside it included."""
    paths: list[tuple[str, ...]] = []
    for name, field in getattr(config_class, "__pydantic_fields__", {}).items():
        paths.append((*place, name))
        paths += _paths(field.annotation, (*place, name))
    return paths
