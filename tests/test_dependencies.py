"""What `pyproject.toml` asks for is what the code imports and what docs/dependencies.md explains."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {
    name: words for name, words in PROJECT["optional-dependencies"].items() if name not in ("test", "docs", "dev")
}

MODULES = {
    "PIL": "pillow",
    "yaml": "pyyaml",
    "open_clip": "open_clip_torch",
    "huggingface_hub": "huggingface-hub",
    "lightning_fabric": "lightning-fabric",
    "ai_edge_litert": "ai-edge-litert",
    "markupsafe": "jinja2",  # comes with it, as part of its interface
}
"""Modules that are not named as their package is."""

BY_NAME = {"datasets": "imported by its name", "tensorboard": "through torch.utils", "nncf": "imported by its name"}
"""Packages of extras that no import statement shows."""

UNNAMED = {"litert_torch": "writes .tflite files; it cannot be an extra, see docs/deploy/litert.md"}
"""Modules that the code imports and no extra brings."""


def names(requirements: list[str]) -> list[str]:
    return [re.split(r"[\[<>=]", requirement)[0] for requirement in requirements]


def imported() -> set[str]:
    """Packages of other people that the library imports, inside functions too."""
    found: set[str] = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    return {MODULES.get(name, name) for name in found - set(sys.stdlib_module_names) - {"eyespot"}}


def rows(heading: str) -> list[list[str]]:
    """Cells of the table below a heading of the page."""
    text = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")
    section = re.split(r"^## ", text, flags=re.M)
    (own,) = [part for part in section if part.startswith(heading)]
    lines = [line for line in own.splitlines() if line.startswith("| `")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_explains_every_dependency() -> None:
    assert {package for package, *_ in rows("Always")} == set(names(PROJECT["dependencies"]))


def test_the_page_explains_every_package_of_every_extra() -> None:
    wanted = {(extra, package) for extra, words in EXTRAS.items() for package in names(words)}
    assert {(row[0], row[1]) for row in rows("Extras")} == wanted


@pytest.mark.parametrize("heading", ["Always", "Extras"])
def test_every_row_says_what_for_which_licence_and_what_instead(heading: str) -> None:
    assert all(len(row) == (4 if heading == "Always" else 5) and all(row) for row in rows(heading))


def test_what_is_always_installed_is_imported() -> None:
    assert set(names(PROJECT["dependencies"])) <= imported()


def test_what_is_imported_is_asked_for() -> None:
    known = set(names(PROJECT["dependencies"])) | {package for words in EXTRAS.values() for package in names(words)}
    assert imported() - known == set(UNNAMED)
    assert known - imported() == set(BY_NAME)
