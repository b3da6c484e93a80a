"""Code that encoders rest on and that is no library's: changed code is another encoder, even with equal weights."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from torch import nn


class CodeFile(NamedTuple):
    """A file of code.

    Attributes:
        name: of the module that it is.
        file: where it lies.
        package: what its relative imports start from, None if it can have none.
    """

    name: str
    file: Path
    package: str | None


_AS_LOADED: dict[str, tuple[ModuleSpec | None, str]] = {}
"""Module -> its `__spec__`, which is another one after every import, and the hash of its file at that time."""


def code_hash(starts: Iterable[CodeFile], packages: Iterable[str] = ()) -> str | None:
    """SHA-256 of the code that files rest on, through all their imports, as it was when it was loaded.

    Code of installed libraries and of eyespot is left out. Folders are no part of it, so that code may be moved.

    Args:
        starts: the files to begin with.
        packages: libraries that count all the same.

    Returns:
        None if nothing is left.
    """
    found = sorted((source.file.name, _hash_as_loaded(source)) for source in own_sources(starts, packages))
    return hashlib.sha256(repr(found).encode()).hexdigest() if found else None


def code_of_types(model: nn.Module) -> str | None:
    """`code_hash` of the classes that a model is made of; None if they are all of libraries."""
    names = {kind.__module__ for part in model.modules() for kind in type(part).__mro__}
    return code_hash(source for name in sorted(names) if (source := located(name)) is not None)


def own_sources(starts: Iterable[CodeFile], packages: Iterable[str] = ()) -> list[CodeFile]:
    """The files themselves and all that they import, without those of libraries; see `code_hash`."""
    found: dict[str, CodeFile] = {}
    ahead = list(starts)
    tops = set(packages)
    while ahead:
        source = ahead.pop()
        if source.name in found or not _is_own(source, tops):
            continue
        found[source.name] = source
        ahead += [other for name in _imported(source) if (other := located(name)) is not None]
    return list(found.values())


def forget_changed(start: CodeFile, packages: Iterable[str] = ()) -> None:
    """Makes Python import anew what `start` rests on, if any of it has changed since it was imported.

    Python keeps what it has imported, so that changed code beside a file would not be seen by this process.

    Args:
        start: a module; without a package, a file that is executed whenever it is named.
        packages: see `code_hash`.
    """
    sources = own_sources([start], packages)
    if start.package is None:
        sources = [source for source in sources if source.name != start.name]
    loaded = [source for source in sources if _is_current(source.name)]
    if all(_AS_LOADED[source.name][1] == _hash(source.file) for source in loaded):
        return
    tops = {source.name.partition(".")[0] for source in sources} - {"__main__"}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in tops:
            del sys.modules[name]
            # an edit within the same second that keeps the length would be hidden by the compiled file
            cached = getattr(module, "__cached__", None)
            if cached and Path(cached).is_file():
                Path(cached).unlink(missing_ok=True)
    importlib.invalidate_caches()


def _hash_as_loaded(source: CodeFile) -> str:
    if not _is_current(source.name):
        _AS_LOADED[source.name] = (_spec_of(source.name), _hash(source.file))
    return _AS_LOADED[source.name][1]


def _is_current(name: str) -> bool:
    """Whether a module was looked at since it was last imported."""
    known = _AS_LOADED.get(name)
    return known is not None and name in sys.modules and known[0] is _spec_of(name)


def _spec_of(name: str) -> ModuleSpec | None:
    return getattr(sys.modules.get(name), "__spec__", None)


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _is_own(source: CodeFile, packages: set[str]) -> bool:
    top = source.name.partition(".")[0]
    if top == "eyespot" or top in sys.stdlib_module_names:
        return False
    if top in packages:
        return True
    libraries = [Path(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib", "purelib", "platlib")]
    inside = any(source.file.is_relative_to(folder) for folder in libraries)
    return not inside and not {"site-packages", "dist-packages"} & set(source.file.parts)


def located(name: str) -> CodeFile | None:
    """Where the code of a module lies, without importing it; None if it is in no file."""
    module = sys.modules.get(name)
    if module is not None:
        return _source_of(name, module)
    try:
        spec = importlib.util.find_spec(name) if name.rpartition(".")[0] in ("", *sys.modules) else None
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None or not spec.origin or not Path(spec.origin).is_file():
        return None
    return CodeFile(name, Path(spec.origin), spec.parent)


def _source_of(name: str, module: ModuleType) -> CodeFile | None:
    file = getattr(module, "__file__", None)
    return CodeFile(name, Path(file), module.__package__) if file and Path(file).is_file() else None


def _imported(source: CodeFile) -> Iterator[str]:
    """Names of all modules that a file may import, those inside functions too."""
    if source.file.suffix != ".py":
        return
    for node in ast.walk(ast.parse(source.file.read_bytes())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                try:
                    base = importlib.util.resolve_name("." * node.level + base, source.package or "")
                except ImportError:
                    continue
            yield from _with_parents(base)
            yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")


def _with_parents(name: str) -> Iterator[str]:
    """The name and those of the packages around it, whose code runs too."""
    parts = name.split(".")
    return (".".join(parts[: count + 1]) for count in range(len(parts)))
