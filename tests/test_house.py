"""The rules of the house (DESIGN, section 3), held by reading the imports: who may know whom, and how large things are.

What may not be is listed with its reason below; the lists only shrink.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"

GROUND = (
    "lazy",
    "features",
    "files",
    "contents",
    "locks",
    "outputs",
    "specs",
    "flops",
    "dense_tasks",
    "pictures",
    "randomness",
    "config",
    "tables",
    "waiting",
)
FLOORS = {
    **dict.fromkeys(GROUND, 0),
    "data": 1,
    "encoders": 1,
    "engine": 2,
    "distill": 3,
    "evaluate": 4,
    "report": 5,
    "runs": 6,
    "audit": 6,
    "deploy": 6,
    "recipes": 7,
    "plan": 8,
    "quickstart": 8,
    "cli": 9,
    "__main__": 10,
}

MOST_LINES = 420
MOST_FILES = 18  # beside __init__

UPWARD: dict[tuple[str, str], str] = {}
"""(module, what it imports) -> why that is right although it points up or sideways."""

OWNED_BY_ONE: dict[str, str] = {
    "eyespot.evaluate.protocols.multitask.table": "the tables' Delta_m, a metric of the protocol, whoever asks for it",
}
"""Module below the recipes that only one recipe reaches -> why it is there all the same."""

CIRCLES: dict[str, str] = {}
"""Modules that reach themselves -> why."""

FAMILIES = {
    "run": "eyespot.evaluate.protocols",
    "check": "eyespot.evaluate.protocols",
    "write": "eyespot.deploy.formats",
    "write_int8": "eyespot.deploy.formats",
    "open_session": "eyespot.encoders.runtimes",
    "distill": "eyespot.recipes",
    "quick_head": "eyespot.evaluate.protocols",
}
"""Functions that every module of a folder may have, as one of several that do the same thing each in its own way."""

TWICE: dict[str, str] = {}
"""Public name that is defined in several modules -> why."""

DIFFLIB = {"eyespot.specs"}
"""Who compares names: `lookup`, `suggestion` and `nearest_names` answer every misspelt one."""

LONG: dict[str, str] = {}
"""File with more lines than it should have -> why."""

FULL: dict[str, str] = {}
"""Folder with more files than it should have -> why."""


def _name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    """Every module of the library by its dotted name."""
    return {_name_of(path): path for path in sorted((SOURCE / "eyespot").rglob("*.py"))}


@cache
def imports() -> dict[str, frozenset[str]]:
    """Which modules of the library each one imports, inside functions and for type checking too."""
    return {name: frozenset(_imported(path)) - {name} for name, path in modules().items()}


def _imported(path: Path) -> list[str]:
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute in this house"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.append(inner if inner in modules() else node.module or "")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):  # what is imported by name
            place = node.value.partition(":")[0]
            if place.startswith("eyespot.") and place in modules():
                found.append(place)
    return [name for name in found if name in modules()]


def room(module: str) -> str:
    """The folder or ground file directly in the package."""
    return module.split(".")[1] if "." in module else ""


def floor(module: str) -> int:
    """The number of a module's floor; the package itself, which names what it offers, stands above the encoders."""
    return FLOORS[room(module)] if room(module) else 2


def crossings() -> dict[tuple[str, str], str]:
    """Imports that point up, or sideways into another folder of the same floor."""
    wrong: dict[tuple[str, str], str] = {}
    for name, known in imports().items():
        for other in known:
            same_ground = floor(name) == 0 == floor(other)
            if room(name) == room(other) or same_ground or floor(other) < floor(name):
                continue
            wrong[name, other] = f"{name} (floor {floor(name)}) imports {other} (floor {floor(other)})"
    return wrong


def test_every_room_has_a_floor():
    assert {room(name) for name in modules() if room(name)} <= set(FLOORS)


def test_imports_go_down():
    wrong = crossings()
    assert [text for pair, text in wrong.items() if pair not in UPWARD] == []
    assert set(UPWARD) <= set(wrong), "an exception that is no longer needed: take it off the list"


def test_no_recipe_imports_another():
    wrong = [
        f"{name} imports {other}"
        for name, known in imports().items()
        for other in known
        if _recipe(name) and _recipe(other) and _recipe(name) != _recipe(other)
    ]
    assert wrong == []


def test_what_one_recipe_alone_reaches_lies_in_its_folder():
    alone = {name: owner for name, owner in _only_reached_by_one_recipe().items() if name not in OWNED_BY_ONE}
    assert alone == {}
    assert set(OWNED_BY_ONE) <= set(_only_reached_by_one_recipe()), "an exception that is no longer needed"


def _recipe(module: str) -> str | None:
    """The method whose folder a module lies in."""
    parts = module.split(".")
    inside = parts[1:2] == ["recipes"] and len(parts) > 2 and (SOURCE / "/".join(parts[:3])).is_dir()
    return parts[2] if inside else None


def _only_reached_by_one_recipe() -> dict[str, str]:
    """Module below the recipes -> the one recipe that reaches it, where no other verb or tool does."""
    reached: dict[str, set[str]] = {}
    for name in modules():
        others = floor(name) >= 7 or room(name) in ("audit", "deploy") or not room(name)
        owner = _recipe(name) or (name if others else None)
        for inner in _reach(name) if owner else ():
            reached.setdefault(inner, set()).add(str(owner))
    recipes = {_recipe(name) for name in modules()}
    return {
        name: next(iter(owners))
        for name, owners in reached.items()
        if len(owners) == 1 and owners <= recipes and floor(name) < 7 and not _is_package(name)
    }


@cache
def _reach(module: str) -> frozenset[str]:
    """What a module needs, directly or not; the registry of recipes leads into no recipe."""
    seen: set[str] = set()
    ahead = [module]
    while ahead:
        for other in imports()[ahead.pop()]:
            if other not in seen and _recipe(other) in (None, _recipe(module)):
                seen.add(other)
                ahead.append(other)
    return frozenset(seen)


def _is_package(module: str) -> bool:
    return modules()[module].name == "__init__.py"


def test_there_is_no_circle():
    circles = [name for name in modules() if not _is_package(name) and name in _reach_by_modules(name)]
    assert [name for name in circles if name not in CIRCLES] == []
    assert set(CIRCLES) <= set(circles), "an exception that is no longer needed: take it off the list"


@cache
def _reach_by_modules(module: str) -> frozenset[str]:
    """The same without the packages' `__init__` files, which import what lies below them."""
    seen: set[str] = set()
    ahead = [module]
    while ahead:
        for other in imports()[ahead.pop()]:
            if other not in seen and not _is_package(other):
                seen.add(other)
                ahead.append(other)
    return frozenset(seen)


@pytest.mark.parametrize("most", [MOST_LINES])
def test_files_stay_short(most: int):
    long = {name: n for name, path in modules().items() if (n := len(path.read_text().splitlines())) > most}
    assert {name: n for name, n in long.items() if name not in LONG} == {}
    assert set(LONG) <= set(long), "an exception that is no longer needed"


def test_folders_stay_clear():
    full = {}
    for folder in {path.parent for path in modules().values()}:
        count = len([path for path in folder.glob("*.py") if path.name != "__init__.py"])
        if count > MOST_FILES:
            full[str(folder.relative_to(SOURCE))] = count
    assert {name: count for name, count in full.items() if name not in FULL} == {}
    assert set(FULL) <= set(full), "an exception that is no longer needed"


def test_a_public_name_has_one_meaning():
    places: dict[str, list[str]] = {}
    for name, path in modules().items():
        for defined in _defined(path):
            of_family = name.startswith(f"{FAMILIES.get(defined)}.")
            if not of_family and room(name) != "cli":  # a verb is named as the function that it calls
                places.setdefault(defined, []).append(name)
    twice = {name: where for name, where in places.items() if len(where) > 1}
    assert {name: where for name, where in twice.items() if name not in TWICE} == {}
    assert set(TWICE) <= set(twice), "an exception that is no longer needed: take it off the list"


def _defined(path: Path) -> list[str]:
    """Public classes, functions and type aliases of a module."""
    found: list[str] = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.append(node.name)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            alias = node.targets[0].id
            found += [alias] if alias[0].isupper() and not alias.isupper() else []
    return [name for name in found if not name.startswith("_")]


def test_one_place_guesses_what_a_misspelt_name_meant():
    found = {name for name, path in modules().items() if "import difflib" in path.read_text(encoding="utf-8")}
    assert found == DIFFLIB
