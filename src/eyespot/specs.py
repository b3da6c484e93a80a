"""What people write: options as `key=value&key=value`, values with types of their own, and names, often misspelt."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote, unquote

_Entry = TypeVar("_Entry")


def read_options(query: str) -> dict[str, Any]:
    """Options of "a=3&b=true&c=x,y". What stands for itself is written as in addresses: %2C is a comma, %26 an &."""
    entries = (entry.partition("=") for entry in query.split("&") if entry)
    return {unquote(key): _read(text, unquote) for key, _, text in entries}


def write_options(options: Mapping[str, Any]) -> str:
    """The inverse of `read_options`."""
    return "&".join(f"{quote(key)}={_text(value)}" for key, value in options.items())


def read_value(text: str) -> Any:
    """A value as written: true, 3, 0.5, a comma-separated tuple of those, or the text itself."""
    return _read(text, str)


def _read(text: str, decoded: Callable[[str], str]) -> Any:
    if "," in text:
        return tuple(_read(part, decoded) for part in text.split(","))
    text = decoded(text)
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def lookup(table: Mapping[str, _Entry], name: str, what: str) -> _Entry:
    """`table[name]`.

    Args:
        table: what there is, by name.
        name: as somebody wrote it.
        what: what such an entry is called, e.g. "data set".

    Raises:
        ValueError: there is none of that name; the message has the nearest right one, or all.
    """
    if name not in table:
        raise ValueError(f"no {what} {name!r}; {suggestion(name, table)}")
    return table[name]


def suggestion(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The end of a message about a wrong name: "did you mean 'x'?", or all names where none is near."""
    names = list(known)
    near = nearest_names(name, names, cutoff=cutoff)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names) or 'none'}"


def nearest_names(name: str, known: Iterable[str], most: int = 1, cutoff: float = 0.6) -> list[str]:
    """Known names that a misspelt one may have meant, the nearest first; capitals count between equal names only.

    Args:
        name: as somebody wrote it.
        known: the right names.
        most: at most so many.
        cutoff: least likeness, 0 to 1 (that of `difflib`).
    """
    spellings: dict[str, list[str]] = {}
    for right in known:
        spellings.setdefault(right.lower(), []).append(right)
    nearest = difflib.get_close_matches(name.lower(), spellings, n=most, cutoff=cutoff)
    return [difflib.get_close_matches(name, spellings[near], n=1, cutoff=0)[0] for near in nearest]


def _text(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return ",".join(_text(part) for part in value)
    return str(value).lower() if isinstance(value, bool) else quote(str(value), safe="/:")
