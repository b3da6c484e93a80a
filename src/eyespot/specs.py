"""How options are written in specs and on the command line: `key=value&key=value`, with values of their own types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode


def read_options(query: str) -> dict[str, Any]:
    """Options of "a=3&b=true&c=x,y"."""
    return {key: read_value(text) for key, text in parse_qsl(query, keep_blank_values=True)}


def write_options(options: Mapping[str, Any]) -> str:
    """The inverse of `read_options`."""
    return urlencode({key: _text(value) for key, value in options.items()}, safe=",/:")


def read_value(text: str) -> Any:
    """A value as written: true, 3, 0.5, a comma-separated tuple of those, or the text itself."""
    if "," in text:
        return tuple(read_value(part) for part in text.split(","))
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _text(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return ",".join(_text(part) for part in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
