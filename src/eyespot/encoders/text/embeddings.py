"""Embeddings of class names: kept in files, and found again by the names that a data set uses."""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from eyespot.files import atomic_path, read_array, read_text, understood
from eyespot.outputs import MARK, check_output_file


@dataclass(frozen=True)
class TextEmbeddings:
    """One vector per class name, in the space of an image-text model's summaries.

    Attributes:
        names: N class names. One may hold several words for the same thing, with commas or slashes ("cup, mug").
        embeddings: [N, C] float32, of any length.
        bias: [N] float32 if the rows are those of a linear classifier, else None.
    """

    names: tuple[str, ...]
    embeddings: Tensor
    bias: Tensor | None = None

    def __post_init__(self) -> None:
        if self.embeddings.ndim != 2 or len(self.embeddings) != len(self.names):
            raise ValueError(f"{len(self.names)} names do not fit embeddings of shape {tuple(self.embeddings.shape)}")
        if self.bias is not None and self.bias.shape != (len(self.names),):
            raise ValueError(f"{len(self.names)} names do not fit a bias of shape {tuple(self.bias.shape)}")

    def lookup(self, name: str) -> int | None:
        """The row of a class name, or None if no row, or more than one, fits it equally well (ours).

        Case, underscores, hyphens and repeated blanks make no difference. What fits better goes first: the whole name,
        the first of several words, any of them, and last a word without what follows it in parentheses, which LVIS
        uses to tell meanings apart: "bow" fits neither "bow_(weapon)" nor "bow_(decorative_ribbons)" if both are there.
        """
        fit = self._fit(name)
        return None if fit is None else fit[1]

    def match(self, classes: Sequence[str]) -> tuple[list[int], TextEmbeddings]:
        """Which of a data set's classes are known, and their rows.

        A row goes to the class that fits it best; classes that fit it equally well cannot be told apart by it, and
        none of them gets it.

        Returns:
            Indices into `classes` of the K that were found, ascending; and K rows in that order, under the names of
            the data set.
        """
        fits = [self._fit(name) for name in classes]
        count = Counter(fits)
        best = {row: rank for rank, row in sorted((fit for fit in count if fit is not None), reverse=True)}
        rows = {i: fit[1] for i, fit in enumerate(fits) if fit and count[fit] == 1 and best[fit[1]] == fit[0]}
        taken = torch.tensor(list(rows.values()), dtype=torch.long)
        bias = None if self.bias is None else self.bias[taken]
        return list(rows), TextEmbeddings(tuple(classes[index] for index in rows), self.embeddings[taken], bias)

    def _fit(self, name: str) -> tuple[int, int] | None:
        """(rank, row) of the one row that fits best, rank 0 best."""
        pairs = itertools.product(enumerate(_variants(name)), enumerate(self._rows_of))
        for rank, ((asked, texts), (known, rows_of)) in enumerate(pairs):
            if asked == known == WITHOUT_PARENTHESES:
                continue  # or "bat (animal)" would fit "bat (sports)"
            rows = {row for text in texts for row in rows_of.get(text, ())}
            if rows:
                return (rank, rows.pop()) if len(rows) == 1 else None
        return None

    @cached_property
    def _rows_of(self) -> list[dict[str, set[int]]]:
        """For each kind of variant: text -> the rows that it may mean."""
        index: list[dict[str, set[int]]] = [{} for _ in range(WITHOUT_PARENTHESES + 1)]
        for row, name in enumerate(self.names):
            for rows_of, texts in zip(index, _variants(name), strict=True):
                for text in texts:
                    rows_of.setdefault(text, set()).add(row)
        return index


WITHOUT_PARENTHESES = 3


def _variants(name: str) -> tuple[list[str], list[str], list[str], list[str]]:
    """A name as a whole, its first word, all its words, and these without a last remark in parentheses."""
    words = [_plain(word) for word in re.split(r"[,/](?![^(]*\))", name)]
    return [_plain(name)], words[:1], words, [re.sub(r" ?\([^)]*\)$", "", word) for word in words]


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[_-]", " ", text).casefold().split())


def save_text_embeddings(
    path: str | Path, names: Sequence[str], embeddings: Tensor, bias: Tensor | None = None
) -> Path:
    """Writes embeddings of class names as one `.safetensors` file: `embeddings`, `bias`, and the names as metadata.

    Args:
        path: where to.
        names: N class names.
        embeddings: [N, C].
        bias: [N] if the rows are those of a linear classifier.

    Raises:
        ValueError: numbers that do not fit each other, or another suffix.
        FileExistsError, IsADirectoryError: `path` is not ours to write over.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"text embeddings are written to a .safetensors file, not to {path.name}")
    check_output_file(path)
    checked = TextEmbeddings(tuple(names), embeddings, bias)
    tensors = {"embeddings": checked.embeddings} | ({} if bias is None else {"bias": bias})
    cpu = {key: value.detach().float().cpu().contiguous() for key, value in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(cpu, temporary, metadata={"generator": MARK, "names": json.dumps(list(names))})
    return path


def load_text_embeddings(path: str | Path, names: str | Path | Sequence[str] | None = None) -> TextEmbeddings:
    """Reads embeddings of class names.

    Args:
        path: a `.safetensors` file of `save_text_embeddings`, or a `.npy` file [N, C].
        names: for a `.npy` file, its N names in order, or a file of them: `.txt` (one per line), `.json` (strings, or
            dicts with `name`, and if they like `id` to be sorted by and `synonyms`), `.csv` (lines of id, ..., name,
            no header; sorted by id).

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, another format, or names that are missing, too many or too few.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no text embeddings at {path}")
    if path.suffix == ".safetensors":
        if names is not None:
            raise ValueError(f"{path} brings its own names; leave names out")
        return _read_safetensors(path)
    if path.suffix != ".npy":
        raise ValueError(f"text embeddings are read from .safetensors or .npy, not from {path.name}")
    if names is None:
        raise ValueError(f"{path} holds no names; give them too: names=FILE (.txt, .json or .csv)")
    array = read_array(path)
    if array.dtype.kind not in "biuf" or array.ndim != 2:
        raise ValueError(f"{path} holds {array.dtype} {array.shape}, embeddings are numbers [names, channels]")
    listed = read_names(names) if isinstance(names, (str, Path)) else tuple(names)
    return _checked(path, listed, torch.from_numpy(array.astype(np.float32)))


def read_names(path: str | Path) -> tuple[str, ...]:
    """Class names from a file, see `load_text_embeddings`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another format.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file of names at {path}")
    text = read_text(path)
    if path.suffix == ".txt":
        return tuple(line.strip() for line in text.splitlines() if line.strip())
    try:
        if path.suffix == ".json":
            return _names_of_json(json.loads(text))
        if path.suffix == ".csv":
            rows = [row for row in csv.reader(text.splitlines()) if row]
            return tuple(row[-1].strip() for row in sorted(rows, key=lambda row: int(row[0])))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a list of names ({type(error).__name__}: {error})") from error
    raise ValueError(f"names are read from .txt, .json or .csv, not from {path.name}")


def _names_of_json(entries: object) -> tuple[str, ...]:
    if not isinstance(entries, list):
        raise TypeError(f"a list was expected, not {type(entries).__name__}")
    if all(isinstance(entry, dict) and "id" in entry for entry in entries):
        entries = sorted(entries, key=lambda entry: entry["id"])
    return tuple(_name_of(entry) for entry in entries)


def _name_of(entry: str | dict) -> str:
    if isinstance(entry, str):
        return entry
    return ", ".join(dict.fromkeys([entry["name"], *entry.get("synonyms", [])]))


def _read_safetensors(path: Path) -> TextEmbeddings:
    try:
        with understood(path), safe_open(path, framework="pt") as file:
            names = json.loads((file.metadata() or {}).get("names", "null"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or "embeddings" not in tensors:
        raise ValueError(f"{path} is no file of text embeddings: it needs a tensor `embeddings` and metadata `names`")
    return _checked(path, tuple(names), tensors["embeddings"], tensors.get("bias"))


def _checked(path: Path, names: tuple[str, ...], embeddings: Tensor, bias: Tensor | None = None) -> TextEmbeddings:
    try:
        return TextEmbeddings(names, embeddings.float(), None if bias is None else bias.float())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
