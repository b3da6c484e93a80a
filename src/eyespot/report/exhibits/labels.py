"""Short names for the page: specs are long, and full of options."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from eyespot.encoders import SOURCES

_GENERIC = ("student", "model")  # folders that say nothing about what is in them


def short_labels(names: Iterable[str]) -> dict[str, str]:
    """A short label for each name; the name itself where it is no spec, or where two labels would be the same.

    "onnx/a/depth.onnx?license=mit" -> "depth", "run/runs/x/student" -> "x", "timm/vit_tiny" -> "vit_tiny".
    """
    labels = {name: _short(name) for name in names}
    counts = Counter(labels.values())
    return {name: label if counts[label] == 1 else name for name, label in labels.items()}


def is_spec(name: str) -> bool:
    """Whether a name has the form of a model's spec, source first."""
    return name.partition("/")[0] in SOURCES and "/" in name


def _short(name: str) -> str:
    source, _, rest = name.partition("?")[0].partition("/")
    if not is_spec(name):
        return name
    parts = [part for part in rest.split("/") if part]
    while len(parts) > 1 and parts[-1] in _GENERIC:
        parts.pop()
    last = parts[-1].removesuffix(".onnx") if parts else name
    return last.rpartition(":")[2] if source == "python" else last
