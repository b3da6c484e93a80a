"""Configurations: typed dataclasses that refuse what they do not know, and settings that are laid over one another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from eyespot.specs import nearest_names

_Config = TypeVar("_Config")
T = TypeVar("T")

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


def _one_as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value or []


OneOrMore = Annotated[list[T], BeforeValidator(_one_as_list)]
"""A list of texts; in YAML a single one may stand by itself."""


Probability = Annotated[float, Field(ge=0, le=1)]


class ConfigError(ValueError):
    """A configuration that cannot be used; the message lists every fault."""


def build(config_class: type[_Config], settings: Mapping[str, Any], source: str) -> _Config:
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
            message = "no such setting" + _suggestion(path, config_class)
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


def as_plain(config: Any) -> dict[str, Any]:
    """A configuration (a dataclass) as YAML would give it back; what all of its kind share stands last."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    shared, *own = [kind for kind in reversed(type(config).__mro__) if is_dataclass(kind)]
    names = [name for kind in (*own, shared) for name in vars(kind).get("__annotations__", ())]
    return {name: plain[name] for name in dict.fromkeys(names) if name in plain}


def settings_of(config_class: Any, place: str = "") -> dict[str, Any]:
    """Dotted name -> type of every setting, those of the configurations inside a configuration included.

    Args:
        config_class: a pydantic dataclass; anything else has no settings.
        place: what the names begin with, a dot at its end.
    """
    found: dict[str, Any] = {}
    for name, field in getattr(config_class, "__pydantic_fields__", {}).items():
        found[place + name] = field.annotation
        found |= settings_of(field.annotation, f"{place}{name}.")
    return found


def _suggestion(wrong: str, config_class: Any) -> str:
    """The setting of the same place that looks most like a misspelt one, or else the one of another place."""
    place, _, word = wrong.rpartition(".")
    known: dict[str, str] = {}
    for name in settings_of(config_class):
        known.setdefault(name.rpartition(".")[2], name)
    beside = [name.rpartition(".")[2] for name in settings_of(config_class) if name.rpartition(".")[0] == place]
    if near := nearest_names(word, beside):
        return f"; did you mean {near[0]!r}?"
    if near := nearest_names(word, known):
        return f"; did you mean {known[near[0]]!r}?"
    return ""
