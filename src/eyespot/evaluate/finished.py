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
from eyespot.data.sources.fingerprint import full_fingerprint
from eyespot.encoders.base import Encoder
from eyespot.encoders.identity import identity, stamp
from eyespot.files import UnreadableFileError, atomic_write_text, read_json, understood

Scores = Mapping[str, float | None]
_SCORES = TypeAdapter(dict[str, int | float | None])

CHANGEABLE = {
    "data": "data (or the same, changed since)",
    "weights": "weights",
    "files": "files among its options",
    "code": "code of the model",
    "configuration": "configuration of the model",
    "eyespot": "version of eyespot",
}
"""What may change under the same names, and how it is called."""


class FinishedMeasurements:
    """One small file per model, task, data and setting, in a folder; without a folder nothing is remembered.

    Args:
        folder: where the files are.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._facts: dict[str, dict[str, str]] = {}

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
            "files": files_named(setting),
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
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        self._facts[key] = {name: json.dumps(value, sort_keys=True) for name, value in (facts | switches).items()}
        return key

    def find(self, key: str | None) -> Scores | None:
        """What was measured under a key, if anything.

        Warns:
            UserWarning: it was measured before, of other data or weights (says which), or the file is damaged; both
                count as nothing.
        """
        file = self._file(key)
        if file is None or not file.is_file():
            self._tell_of_changes(key)
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
            facts = {name: _short(value) for name, value in self._facts.get(file.stem, {}).items()}
            kept = {"model": model, "task": task, "values": dict(values), "facts": facts}
            atomic_write_text(file, json.dumps(kept, indent=1))

    def _tell_of_changes(self, key: str | None) -> None:
        """Says why something is measured anew that was measured in the same setting before."""
        if self.folder is None or key is None or not self.folder.is_dir():
            return
        now = self._facts[key]
        wanted = {name: _short(value) for name, value in now.items()}
        for file in sorted(self.folder.glob("*.json")):
            then = _facts_in(file)
            changed = {name for name in wanted if then.get(name) != wanted[name]}
            if then.keys() == wanted.keys() and changed <= CHANGEABLE.keys():
                what = " and ".join(CHANGEABLE[name] for name in CHANGEABLE if name in changed)
                task, model = json.loads(now["task"]), json.loads(now["model"])
                warnings.warn(
                    f"{task} of {model}: measured before with other {what}; it is measured anew", stacklevel=3
                )
                return

    def _file(self, key: str | None) -> Path | None:
        return None if self.folder is None or key is None else self.folder / f"{key}.json"


def _facts_in(file: Path) -> dict[str, str]:
    """Of what a measurement is; nothing of a damaged file, which is told of when it is needed."""
    try:
        with understood(file):
            return dict(read_json(file).get("facts", {}))
    except UnreadableFileError:
        return {}


def _short(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:16]


def files_named(setting: Any) -> tuple[tuple[str, int], ...]:
    """Local files that a setting names, as paths or specs (texts, names, reference models), and what is in them."""
    return stamp(*_texts_in(setting))


def _texts_in(setting: Any) -> list[str]:
    if isinstance(setting, Mapping):
        setting = list(setting.values())
    if isinstance(setting, list | tuple):
        return [text for value in setting for text in _texts_in(value)]
    return [setting] if isinstance(setting, str) else []


def fingerprint(data: Any) -> Any:
    """What tells a task's data from other data, JSON-able: hashes of tensors and pictures, plain values as they are.

    Raises:
        TypeError: something that has neither a fingerprint nor fields.
    """
    if hasattr(data, "fingerprint"):
        return full_fingerprint(data)
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
