"""What has been measured already: an interrupted evaluation redoes no finished work."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from torch import Tensor

from eyespot import __version__
from eyespot.data.labelled.base import tensor_fingerprint
from eyespot.encoders.base import Encoder
from eyespot.encoders.identity import identity
from eyespot.files import UnreadableFileError, atomic_write_text, read_json, understood
from eyespot.specs import read_options

Scores = Mapping[str, float | None]
_SCORES = TypeAdapter(dict[str, int | float | None])


class FinishedMeasurements:
    """One small file per model, task, data and setting, in a folder; without a folder nothing is remembered.

    Args:
        folder: where the files are.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def key(self, encoder: Encoder, task: str, data: Any, setting: Mapping[str, Any]) -> str | None:
        """Names one measurement; None if it cannot be told from others (an option that is an object, say).

        Raises:
            ValueError: the encoder's setting uses a name that stands for something else here.
        """
        if self.folder is None:
            return None
        adapters = {name: tensor_fingerprint(value) for name, value in sorted(encoder.adapters.items())}
        facts = {
            **identity(encoder),
            "adapters": adapters,
            **({"class_names": encoder.class_names} if encoder.class_names else {}),
            "task": task,
            "data": fingerprint(data),
            "setting": setting,
            "files": _files_named(setting),
            "eyespot": __version__,
        }
        switches = encoder.setting()
        taken = sorted(facts.keys() & switches.keys())
        if taken:
            raise ValueError(f"{encoder.name}: call what its setting() names {', '.join(taken)} something else")
        try:
            text = json.dumps(facts | switches, sort_keys=True)
        except TypeError:
            return None
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def find(self, key: str | None) -> Scores | None:
        """What was measured under a key, if anything; a warning tells of a damaged file, which counts as none."""
        file = self._file(key)
        if file is None or not file.is_file():
            return None
        try:
            with understood(file):
                return _SCORES.validate_python(read_json(file)["values"])
        except UnreadableFileError as error:
            warnings.warn(f"{error}; it is measured again", stacklevel=2)
            return None

    def keep(self, key: str | None, model: str, task: str, values: Scores) -> None:
        """Remembers a measurement. Floats survive JSON exactly."""
        file = self._file(key)
        if file is not None:
            atomic_write_text(file, json.dumps({"model": model, "task": task, "values": dict(values)}, indent=1))

    def _file(self, key: str | None) -> Path | None:
        return None if self.folder is None or key is None else self.folder / f"{key}.json"


def _files_named(setting: Any) -> list[list[Any]]:
    """Name, size and time of local files that a setting names, as paths or specs: texts, names, reference models."""
    if isinstance(setting, Mapping):
        return [found for value in setting.values() for found in _files_named(value)]
    if not isinstance(setting, str):
        return []
    spec, _, query = setting.partition("?")
    options = [value for value in read_options(query).values() if isinstance(value, str)]
    places = [Path(text) for text in (spec, spec.partition("/")[2], *options) if text]
    files = [file for place in places for file in (sorted(place.rglob("*.safetensors")) if place.is_dir() else [place])]
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files if file.is_file()]


def fingerprint(data: Any) -> Any:
    """What tells a task's data from other data, JSON-able: hashes of tensors and pictures, plain values as they are.

    Raises:
        TypeError: something that has neither a fingerprint nor fields.
    """
    if hasattr(data, "fingerprint"):
        return data.fingerprint()
    if isinstance(data, Tensor):
        return tensor_fingerprint(data)
    if dataclasses.is_dataclass(data) and not isinstance(data, type):
        return {field.name: fingerprint(getattr(data, field.name)) for field in dataclasses.fields(data)}
    if data is None or isinstance(data, str | int | float):
        return data
    if isinstance(data, Path):
        return str(data)
    if isinstance(data, Sequence):
        parts = json.dumps([fingerprint(part) for part in data])
        return hashlib.sha256(parts.encode()).hexdigest()[:16]
    raise TypeError(f"{type(data).__name__} has no fingerprint")
