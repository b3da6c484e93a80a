"""`eyespot cache`: what it prints, what it leaves behind, and how it ends."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from eupe_tiny import model_bytes
from eyespot.distill.cache import DamagedCacheWarning

COUNT, VIEWS = 12, 2


@pytest.fixture(scope="module")
def settings(command: list[str], folder: Path) -> list[str]:
    """The settings of the whole recipe, as for distill, with a cache."""
    return [*command[1:], "--data.views", str(VIEWS), "--cache.folder", str(folder / "cache")]


@pytest.fixture
def no_cache(folder: Path) -> None:
    shutil.rmtree(folder / "cache", ignore_errors=True)


@pytest.fixture
def filled(eyespot: Any, settings: list[str]) -> None:
    assert eyespot("cache", *settings).code == 0


def shards(folder: Path) -> list[Path]:
    return sorted((folder / "cache").rglob("rows-*"))


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_it_builds_and_the_second_time_has_nothing_to_do(
    eyespot: Any, settings: list[str], folder: Path, no_cache: None
) -> None:
    first = eyespot("cache", *settings)
    assert first.code == 0 and "24 rows" in first.out and "24 computed" in first.out
    assert len(shards(folder)) == 2
    assert "0 computed" in eyespot("cache", *settings).out
    assert len(shards(folder)) == 2


def test_training_finds_all_that_was_built(
    eyespot: Any, settings: list[str], folder: Path, tmp_path: Path, filled: None
) -> None:
    before = shards(folder)
    assert eyespot("distill", *settings, "--output", tmp_path / "run").code == 0
    assert shards(folder) == before, "nothing had to be computed, so nothing was written"


def test_training_from_a_damaged_cache_is_as_if_nothing_had_happened(
    eyespot: Any, settings: list[str], folder: Path, tmp_path: Path, no_cache: None
) -> None:
    assert eyespot("distill", *settings, "--output", tmp_path / "good").code == 0
    bad = shards(folder)[0]
    content = bad.read_bytes()
    bad.write_bytes(content[:-1])
    with pytest.warns(DamagedCacheWarning, match=str(bad)):
        assert eyespot("distill", *settings, "--output", tmp_path / "again").code == 0
    assert bad.read_bytes() == content, "the same rows are there again"
    assert model_bytes(tmp_path / "again") == model_bytes(tmp_path / "good")


def test_an_estimate_says_how_much_and_writes_nothing(
    eyespot: Any, settings: list[str], folder: Path, no_cache: None
) -> None:
    answer = eyespot("cache", *settings, "--estimate")
    assert answer.code == 0 and not (folder / "cache").exists()
    assert "24 rows (2 views of each picture)" in answer.out and "free" in answer.out
    assert "what" in answer.out and "where" in answer.out and "ms per picture" in answer.words


def test_parts_of_an_estimate_and_of_a_build(eyespot: Any, settings: list[str], folder: Path, no_cache: None) -> None:
    assert "8 rows (" in eyespot("cache", *settings, "--estimate", "--part", "2/3").out
    for part in (3, 1, 2):
        assert f"8 rows of part {part}/3" in eyespot("cache", *settings, "--part", f"{part}/3").out
    assert "24 rows" in eyespot("cache", *settings).out


def test_verify_agrees_with_what_was_built(eyespot: Any, settings: list[str], filled: None) -> None:
    answer = eyespot("cache", *settings, "--verify", "5")
    assert answer.code == 0
    assert "24 rows of every teacher" in answer.words
    assert "5 rows computed again: 10 of 10 features equal to the bit" in answer.words


@pytest.mark.filterwarnings("ignore::eyespot.distill.cache.DamagedCacheWarning")
def test_verify_names_a_damaged_shard_and_the_next_build_makes_it_again(
    eyespot: Any, settings: list[str], folder: Path, filled: None
) -> None:
    bad = shards(folder)[0]
    damage(bad)
    answer = eyespot("cache", *settings, "--verify", "5")
    assert answer.code == 1 and str(bad) in answer.words and "without --verify" in answer.words
    assert eyespot("cache", *settings).code == 0
    assert eyespot("cache", *settings, "--verify", "5").code == 0


def test_components_say_what_they_keep(eyespot: Any, settings: list[str], tmp_path: Path) -> None:
    smaller = ["--cache.folder", tmp_path / "small", "--cache.rank", "3", "--cache.store", "int8"]
    answer = eyespot("cache", *settings, *smaller)
    assert answer.code == 0
    assert answer.words.count("of the patches' variance") == 2
    assert eyespot("cache", *settings, *smaller, "--verify", "24").code == 0


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        (["--data.seed", "1"], "seed: 0 -> 1"),
        (["--data.view.flip", "0.1"], "view.flip: 0.5 -> 0.1"),
        (["--data.views", "3"], "views: 2 -> 3"),
        (["--cache.store", "int8"], "store: 'bfloat16' -> 'int8'"),
        (["--max-grid", "2"], "max_grid: 14 -> 2"),
    ],
)
def test_a_cache_for_something_else_is_refused_with_the_difference(
    eyespot: Any, settings: list[str], filled: None, changes: list[str], difference: str
) -> None:
    answer = eyespot("cache", *settings, *changes)
    assert answer.code == 1 and difference in answer.words and "delete this one" in answer.words


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["--cache.folder", "none"], "--cache.folder FOLDER is missing"),
        (["--data.views", "none"], "set --data.views, e.g. to 3"),
        (["--part", "0/3"], "K/N with K from 1 to N, e.g. 2/8, not '0/3'"),
        (["--part", "2"], "e.g. 2/8, not '2'"),
        (["--estimate", "--verify", "3"], "ask one at a time"),
        (["--verify", "3"], "build the cache first"),
        (["--stage1.teacher-sizes", "32"], "there is nothing to keep"),
    ],
)
def test_what_cannot_be_done_is_told(
    eyespot: Any, settings: list[str], no_cache: None, changes: list[str], says: str
) -> None:
    answer = eyespot("cache", *settings, *changes)
    assert answer.code == 1 and says in answer.words
