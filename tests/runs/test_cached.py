"""The cache of a run from Python: opened, filled and checked without the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eupe_tiny import all_stages, tiny_config, write_pictures, write_teachers
from eyespot.data import PictureLoader
from eyespot.distill.cache import CachedCommittee, CacheMismatchError, build_cache, verify
from eyespot.engine.strategy import start_fabric
from eyespot.recipes.eupe import outline
from eyespot.runs.cached import open_cached


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "pictures", 6)
    write_teachers(tmp_path)
    return tmp_path


def opened(folder: Path, **changes: Any) -> tuple[CachedCommittee, PictureLoader]:
    data = {"sources": [str(folder / "pictures")], "views": 2}
    config = tiny_config(folder, **{"data": data, "cache": {"folder": str(folder / "cache")}, **changes}).checked()
    return open_cached(outline(config), config.data, config.cache, config.engine.precision)


def test_it_is_filled_and_verified_by_the_functions_of_the_cache(folder: Path) -> None:
    committee, loader = opened(folder)
    fabric = start_fabric(tiny_config(folder).engine)
    assert build_cache(committee, loader, fabric).computed == 12
    found = verify(*opened(folder), fabric, 3)
    assert found.ok and found.stored == 12 and found.compared == 3


def test_its_pictures_serve_every_stage_that_the_experts_teach(folder: Path) -> None:
    assert opened(folder)[1].config.size == 48
    direct = {"proxy": None, **all_stages(teacher_sizes=[], student_sizes=[32])}
    assert opened(folder, **direct | {"stage3": {"student_sizes": [96], "teacher_sizes": []}})[1].config.size == 96


def test_another_precision_is_another_cache(folder: Path) -> None:
    build_cache(*opened(folder), start_fabric(tiny_config(folder).engine))
    with pytest.raises(CacheMismatchError, match="precision"):
        opened(folder, engine={"precision": "bf16-mixed", "accelerator": "cpu"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cache": {}}, "cache.folder"),
        ({"data": {"sources": ["toybox"]}}, "data.views"),
        ({"stage1": {"teacher_sizes": [32]}}, "nothing to keep"),
    ],
)
def test_what_makes_no_cache_is_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        opened(folder, **changes)
