"""What specs of models say, and short names for them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

from eyespot.specs import read_options


def has_random_weights(spec: str) -> bool:
    """Whether a spec, or the name of an encoder, says that the model starts from random weights."""
    options = read_options(spec.partition("?")[2])
    return options.get("pretrained") is False and "weights" not in options


def short_names(specs: Iterable[str]) -> list[str]:
    """A short unique name for each spec: "onnx/a/depth.onnx" -> "depth", "run/runs/x/experts/what" -> "what"."""
    from torch import nn  # here, since whoever only writes specs needs no torch

    names: list[str] = []
    taken = nn.ModuleDict()  # torch refuses modules named like its own attributes ("keys")
    for spec in specs:
        stem = spec.partition("?")[0].rstrip("/").rpartition("/")[2].rpartition(":")[2]
        stem = re.sub(r"\.onnx$", "", stem)
        base = re.sub(r"[^0-9A-Za-z_-]+", "_", stem)
        numbered = itertools.chain([base], (f"{base}-{number}" for number in itertools.count(2)))
        names.append(next(name for name in numbered if name not in names and not hasattr(taken, name)))
    return names


def trainable_spec(spec: str) -> str:
    """The spec of a model to train: timm's start from random weights unless it says otherwise."""
    if not spec.startswith("timm/") or "pretrained=" in spec:
        return spec
    return f"{spec}{'&' if '?' in spec else '?'}pretrained=false"


def model_name(spec: str) -> str:
    """A spec without source and options, for headings."""
    return spec.partition("?")[0].partition("/")[2]
