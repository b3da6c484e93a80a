"""What tells one encoder from another, down to its weights."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from eyespot.contents import file_contents
from eyespot.encoders.base import Encoder
from eyespot.encoders.code import CodeFile, code_of_types, own_sources
from eyespot.specs import read_options

_SAYS_NOTHING = {"transformers_version", "_name_or_path", "_commit_hash", "dtype", "torch_dtype"}
LATER_KEYS = ("code", "configuration")
"""Entries of `identity` that older versions did not have: what they kept says nothing of them."""


def identity(encoder: Encoder) -> dict[str, str]:
    """All that features depend on: the key under which they are kept.

    Name, weights hash and, where there are such, the setting, a hash of code that is no library's (as it was when it
    was loaded) and of the configuration in the model's folder. The name is without a licence option: a licence is named
    beside the features, it is not in them.

    Raises:
        ValueError: a file has changed since it was loaded.
    """
    known = {"model": re.sub(r"[?&]license=[^&]*$", "", encoder.name), "weights": weights_hash(encoder)}
    setting = encoder.setting(features_only=True)
    if setting:
        known["model_setting"] = json.dumps(setting, sort_keys=True)
    encoders = list(_encoders_in(encoder))
    code = {code_of_types(encoder), *(part.code for part in encoders)} - {None}
    configurations = [part.configuration for part in encoders if part.configuration]
    if code:
        known["code"] = _hash_of(sorted(str(one) for one in code))
    if configurations:
        known["configuration"] = _hash_of(configurations)
    return known


def weights_hash(encoder: Encoder) -> str:
    """SHA-256 of an encoder's weights: of its files, of its tensors, of its normalisation and order of channels.

    Raises:
        ValueError: a file has changed since it was loaded.
    """
    digest = hashlib.sha256()
    for part in _encoders_in(encoder):
        for place in part.files:
            for file in _files_in(place):
                with file.open("rb") as content:
                    hashlib.file_digest(content, lambda: digest)
    tensors = {**encoder.state_dict(), "mean": encoder.mean, "std": encoder.std}
    for name, value in tensors.items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    if encoder.channel_order != "rgb":
        digest.update(encoder.channel_order.encode())
    return digest.hexdigest()


def configuration_hash(config: Mapping[str, Any]) -> str:
    """SHA-256 of a configuration file, without what does not change the model that it describes."""
    return _hash_of([json.dumps({key: config[key] for key in config.keys() - _SAYS_NOTHING}, sort_keys=True)])


def files_of(*specs: str) -> list[Path]:
    """Local files that specs name.

    A folder stands for all that is in it, a file also for those beside it whose names begin with its own
    (model.onnx_data), and one of Python for the code that it imports.
    """
    places = [place for spec in specs for place in _places_in(spec)]
    files = [file for place in places if place.exists() for file in _files_at(place)]
    code = [source.file for file in files if file.suffix == ".py" for source in own_sources([CodeFile("", file, None)])]
    return sorted({*files, *code})


def stamp(*specs: str) -> tuple[tuple[str, int], ...]:
    """Local files that specs name, and what is in them: the key of what is kept in a process by its spec."""
    files = [str(file) for file in files_of(*specs)]
    return tuple(zip(files, file_contents(files).tolist(), strict=True))


def _places_in(spec: str) -> list[Path]:
    """What a spec could name: itself, what follows its source, a file before its factory, its options."""
    path, _, query = spec.partition("?")
    rest = path.partition("/")[2]
    options = [value for value in read_options(query).values() if isinstance(value, str)]
    return [Path(text) for text in (path, rest, rest.rpartition(":")[0], *options) if text]


def _encoders_in(encoder: Encoder) -> Iterator[Encoder]:
    """The encoder and those inside it."""
    return (part for part in encoder.modules() if isinstance(part, Encoder))


def _files_in(place: Path) -> list[Path]:
    """The file, or all files of a format that is a folder."""
    return sorted(file for file in place.rglob("*") if file.is_file()) if place.is_dir() else [place]


def _files_at(place: Path) -> list[Path]:
    if place.is_dir():
        return _files_in(place)
    return [file for file in place.parent.iterdir() if file.name.startswith(place.name) and file.is_file()]


def _hash_of(texts: list[str]) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()
