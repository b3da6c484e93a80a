"""Packages that import what they offer when it is asked for: their three lists say the same, and each name is there."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import eyespot

ROOT = Path(eyespot.__file__).parent


def lazy_packages() -> list[str]:
    """Packages whose `__init__` calls `lazy_names`."""
    files = [file for file in sorted(ROOT.rglob("__init__.py")) if "lazy_names(" in file.read_text(encoding="utf-8")]
    return [".".join(("eyespot", *file.parent.relative_to(ROOT).parts)) for file in files]


def for_type_checkers(package: str) -> dict[str, str]:
    """Name -> module, of what a package imports for type checkers."""
    tree = ast.parse(Path(import_module(package).__file__ or "").read_text(encoding="utf-8"))
    guarded = [node for node in tree.body if isinstance(node, ast.If)]
    found = [node for block in guarded for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in found for alias in node.names}


@pytest.mark.parametrize("package", lazy_packages())
def test_what_a_package_offers_is_what_type_checkers_see(package: str) -> None:
    module = import_module(package)
    seen = for_type_checkers(package)
    assert set(seen) == set(module.__all__) - {"__version__"}
    for name, place in seen.items():
        assert getattr(module, name) is getattr(import_module(place), name)


@pytest.mark.parametrize("package", lazy_packages())
def test_no_module_of_a_package_has_the_name_of_what_it_offers(package: str) -> None:
    folder = ROOT.joinpath(*package.split(".")[1:])
    modules = {entry.stem for entry in folder.iterdir() if entry.suffix == ".py" or entry.is_dir()}
    assert not modules & set(for_type_checkers(package))


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(AttributeError, match="module 'eyespot' has no attribute 'load_encoders'"):
        eyespot.load_encoders  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'load_encoders'"):
        exec("from eyespot import load_encoders")


def test_names_that_are_not_imported_yet_are_listed() -> None:
    code = "import eyespot, sys; assert 'torch' not in sys.modules; print(*dir(eyespot))"
    names = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert set(eyespot.__all__) <= set(names)


def test_torch_is_imported_when_a_name_needs_it() -> None:
    code = "import eyespot, sys; assert 'torch' not in sys.modules; eyespot.Encoder; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
