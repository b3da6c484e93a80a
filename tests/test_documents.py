"""What the documents point to is there: files, headings, modules, names. The reference leaves no public package out."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "benchmarks/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s#]*)(#[^)\s]*)?\)")
DOTTED = re.compile(r"\beyespot(?:\.[A-Za-z_]\w*)+")
NOT_MODULES = {"eyespot.mjs", "eyespot.json", "eyespot.md"}
"""Files whose names look like modules."""

page_by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@page_by_page
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(prose(page)):
        if "://" in target:
            continue
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), f"{target} is not there"
        if anchor and there.suffix == ".md":
            assert anchor[1:] in headings(there), f"{target}{anchor}: no such heading; there are {headings(there)}"


def headings(page: Path) -> list[str]:
    """Anchors of a page's headings, as GitHub and the site make them."""
    found = []
    for line in re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE):
        text = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", line)
        found.append(re.sub(r"[^\w\- ]", "", text).strip().lower().replace(" ", "-"))
    return found


@page_by_page
def test_modules_and_names_exist(page: Path) -> None:
    for name in sorted(set(DOTTED.findall(page.read_text(encoding="utf-8"))) - NOT_MODULES):
        assert resolved(name) is not None, f"{name} is not there"


def resolved(name: str) -> Any:
    """A module, or something in one; None if there is no such thing."""
    module, rest = name, []
    while module:
        try:
            found: Any = import_module(module)
        except ModuleNotFoundError:
            module, _, last = module.rpartition(".")
            rest.insert(0, last)
            continue
        for word in rest:
            found = getattr(found, word, None)
        return found
    return None


@page_by_page
def test_files_that_are_named_exist(page: Path) -> None:
    roots = (ROOT, ROOT / "src/eyespot", ROOT / "src", ROOT / "benchmarks", page.parent, page.parent / page.stem)
    for name in re.findall(r"`([\w./-]+\.(?:py|json|md))`", prose(page)):
        if "/" in name and not name.startswith(("runs/", "student/", "out/", "FOLDER/", "train2017/", "val2017/")):
            assert any((root / name).exists() for root in roots), f"{name} is not there"


@page_by_page
def test_imports_in_examples_work(page: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE):
        for module, name in imports(textwrap.dedent(block)):
            assert resolved(f"{module}.{name}") is not None, f"from {module} import {name}"


def imports(block: str) -> Iterator[tuple[str, str]]:
    """What an example imports from eyespot."""
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("eyespot"):
            for name in node.names:
                yield str(node.module), name.name


def test_the_code_tour_names_what_is_in_the_files() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tour = re.findall(r"^\d\. \[`[^`]+`\]\((src/[^)]+)\) `(\w+)`", readme, flags=re.MULTILINE)
    assert len(tour) == 6
    for file, symbol in tour:
        defined = {getattr(node, "name", "") for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body}
        assert symbol in defined, f"{file} defines no {symbol}"


def test_the_reference_names_things_that_exist_and_all_public_packages() -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs/reference").glob("*.md"))
    named = re.findall(r"^::: ([\w.]+)", pages, flags=re.MULTILINE)
    missing = [name for name in named if resolved(name) is None]
    assert not missing
    public = {
        ".".join(file.parent.relative_to(ROOT / "src").parts)
        for file in (ROOT / "src/eyespot").rglob("__init__.py")
        if "__all__" in file.read_text(encoding="utf-8")
    }
    left_out = {name for name in public if not any(shown == name or shown.startswith(f"{name}.") for shown in named)}
    assert not left_out, "packages with __all__ that no page of docs/reference shows"
