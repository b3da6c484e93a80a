"""`python/pkg.module:factory` or `python/path/to/file.py:factory`: an encoder of your own."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from eyespot.encoders.base import Encoder
from eyespot.encoders.code import CodeFile, code_hash, forget_changed, located

_OF_FILES = "eyespot_user"
"""What names of modules begin with that were loaded from a file."""


def create_python_encoder(target: str, **options: Any) -> Encoder:
    """Calls `factory(**options)`, which must return an `eyespot.Encoder`.

    Args:
        target: "pkg.module:factory", or "file.py:factory" with a relative or absolute path.
        options: handed to the factory as they are.

    Raises:
        ValueError: no `:factory` in the target, or no such name in the module.
        FileNotFoundError, ModuleNotFoundError: nothing to import there.
        TypeError: what came back is not an Encoder, or one that does not state its widths, stride and default size.
    """
    encoder = load_factory(target)(**options)
    if not isinstance(encoder, Encoder):
        raise TypeError(f"python/{target}: the factory must return an eyespot.Encoder, it returned {type(encoder)}")
    missing = [name for name in ("summary_dim", "patch_dim", "stride", "default_size") if not hasattr(encoder, name)]
    if missing:
        raise TypeError(f"python/{target}: set {', '.join(missing)} on the encoder, see eyespot.Encoder")
    encoder.name, encoder.code = f"python/{target}", code_behind(target)
    return encoder


def code_behind(target: str) -> str | None:
    """Hash of the code of "pkg.module:factory" or "file.py:factory" and of what it imports; see `code.code_hash`."""
    start = _source(target.rpartition(":")[0])
    return None if start is None else code_hash([start], _packages(start))


def load_factory(target: str) -> Callable[..., Any]:
    """What "pkg.module:factory" or "file.py:factory" names, in the code as it is now.

    Raises:
        ValueError: no `:factory` in the target, or no such name in the module.
        FileNotFoundError, ModuleNotFoundError: nothing to import there.
    """
    place, colon, factory_name = target.rpartition(":")
    if not colon:
        raise ValueError(f"python/{target}: write python/pkg.module:factory or python/file.py:factory")
    known = _source(place)
    if known is not None:
        forget_changed(known, _packages(known))
    module = _load_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    factory = getattr(module, factory_name, None)
    if factory is None:
        raise ValueError(f"python/{target}: {place} has no {factory_name!r}")
    return factory


def target_of(kind: type) -> str:
    """The inverse of `load_factory` for a class: "pkg.module:Class", or "file.py:Class" if it was loaded from a file.

    Raises:
        ValueError: a class that cannot be found again.
    """
    name = kind.__qualname__
    if "." in name or kind.__module__ == "__main__":
        raise ValueError(
            f"the class {name} of {kind.__module__} cannot be found again from a saved folder; put it at the top of a "
            "module that can be imported, or of a file loaded as python/file.py:factory"
        )
    is_file = kind.__module__.startswith(_OF_FILES)
    return f"{sys.modules[kind.__module__].__file__ if is_file else kind.__module__}:{name}"


class _SourceLoader(SourceFileLoader):
    """Compiles what the file says: Python's compiled files miss an edit within a second that keeps the length."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"no Python file at {path}")
    name = _module_name(path)
    module_spec = importlib.util.spec_from_file_location(name, path, loader=_SourceLoader(name, str(path)))
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = module  # dataclasses and pickle look a class's module up there
    module_spec.loader.exec_module(module)
    return module


def _source(place: str) -> CodeFile | None:
    """The file of a module or of a path ending in .py; None if there is none."""
    if not place.endswith(".py"):
        return located(place)
    path = Path(place)
    return CodeFile(_module_name(path), path, None) if path.is_file() else None


def _packages(source: CodeFile) -> list[str]:
    """The library that is named itself: its own code counts, though it may be installed."""
    return [source.name.partition(".")[0]]


def _module_name(path: Path) -> str:
    return _OF_FILES + re.sub(r"\W", "_", str(path.resolve()))
