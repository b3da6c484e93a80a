"""`projectors.*`: the adapter heads in official EUPE checkpoint files, and their place among `Encoder.adapters`.

The paper's section 4.1 describes the heads (two per teacher; linear without bias, LayerNorm, GELU, linear without
bias); how their tensors are named inside the files is not published. So heads are recognised by their shapes, and told
apart by words in their names. What is not recognised is kept under its own name.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import permutations

import torch
from torch import Tensor

PROJECTORS = "projectors."
KEPT = "official."  # among adapters: what an official file holds and neither timm nor an adapter has a place for
_OLD_NAMES = f"{KEPT}projector_names"
_PART_WORDS = {"summary": "cls|class|summary|global", "patch": "patch(?:es)?|dense|spatial|local|feat(?:ure)?s?"}


def as_adapters(state: Mapping[str, Tensor], width: int) -> dict[str, Tensor]:
    """`Encoder.adapters` from the `projectors.*` of a file: pairs of heads under our names, the rest under its own.

    Args:
        state: of the whole file.
        width: of the encoder's summary and patches.
    """
    tensors = {name: value for name, value in state.items() if name.startswith(PROJECTORS)}
    names = {name: name.removeprefix(PROJECTORS) for name in tensors if _is_ours(name)} | _head_names(tensors, width)
    adapters = {names.get(name, name): value for name, value in tensors.items()}
    moved = {new: old for old, new in names.items() if old != PROJECTORS + new}
    return {**adapters, _OLD_NAMES: _packed(moved)} if moved else adapters


def as_projectors(adapters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `as_adapters`: `projectors.*` of a file. Heads, standardizers and hops that no file gave, too."""
    old_names = _unpacked(adapters[_OLD_NAMES]) if _OLD_NAMES in adapters else {}
    return {
        old_names.get(name, name if name.startswith(PROJECTORS) else PROJECTORS + name): value.detach().cpu()
        for name, value in adapters.items()
        if not name.startswith(KEPT)
    }


def _is_ours(name: str) -> bool:
    return name.startswith((f"{PROJECTORS}standardizers.", f"{PROJECTORS}through."))


def _head_names(tensors: Mapping[str, Tensor], width: int) -> dict[str, str]:
    """{name in the file: `heads.TEACHER.{summary,patch}...`} of all pairs of heads built like an `AdapterHead`.

    A head is four tensors of the right shapes below one path. Which of the two it is, the words of the path must say,
    because the inner names of the official files are not published.
    """
    below = defaultdict(list)
    for name in tensors:
        parts = name.split(".")
        for depth in range(1, len(parts)):
            below[".".join(parts[:depth])].append(name)
    paths = {tuple(names): path for path, names in below.items() if len(names) == 4}  # the deepest path, seen last
    pairs: dict[str, list[tuple[str, dict[str, str]]]] = defaultdict(list)
    for names, path in paths.items():
        head, (teacher, part) = _head(names, tensors, width), _whose(path)
        if head and part:
            pairs[teacher].append((part, head))
    return {
        old: f"heads.{teacher}.{part}.{new}"
        for teacher, heads in pairs.items()
        if sorted(part for part, _ in heads) == ["patch", "summary"]
        for part, head in heads
        for old, new in head.items()
    }


def _head(names: Sequence[str], tensors: Mapping[str, Tensor], width: int) -> dict[str, str]:
    """{name in the file: name in an `AdapterHead`}, empty if the shapes are not those of one."""
    matrices = [name for name in names if tensors[name].ndim == 2]
    vectors = {name.rpartition(".")[2]: name for name in names if tensors[name].ndim == 1}
    for first, last in permutations(matrices, 2):
        hidden = len(tensors[first])
        norm = {kind: len(tensors[name]) for kind, name in vectors.items()}
        fits = tensors[first].shape[1] == width and tensors[last].shape[1] == hidden
        if fits and norm == {"weight": hidden, "bias": hidden}:
            return {first: "0.weight", vectors["weight"]: "1.weight", vectors["bias"]: "1.bias", last: "3.weight"}
    return {}


def _whose(path: str) -> tuple[str, str]:
    """(teacher, "summary" or "patch") of a head; the second is empty if the path does not say."""
    ours = re.fullmatch(rf"{PROJECTORS}heads\.([^.]+)\.(summary|patch)", path)
    if ours:
        return ours[1], ours[2]
    said = [part for part, words in _PART_WORDS.items() if re.search(words, path)]
    words = "|".join(_PART_WORDS.values())
    rest = re.sub(rf"[_-]*({words})([_-]*tokens?)?([_-]*head)?", "", path)
    teacher = next((word for word in rest.split(".")[1:] if word not in ("", "heads", "head")), "proxy")
    return teacher, said[0] if len(said) == 1 else ""


def _packed(names: Mapping[str, str]) -> Tensor:
    """Names as a tensor, since adapters hold tensors only: JSON in bytes."""
    return torch.tensor(list(json.dumps(names).encode()), dtype=torch.uint8)


def _unpacked(packed: Tensor) -> dict[str, str]:
    names: dict[str, str] = json.loads(bytes(packed.tolist()))
    return names
