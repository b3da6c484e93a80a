"""Features are those of what is in the pictures now, though their names and sizes stay; and caches of before that."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from safetensors.torch import load_file, save_file

from eyespot.data import DataConfig, PictureLoader
from eyespot.distill.cache import CacheConfig, CachedCommittee, CacheError, build_cache, verify
from eyespot.distill.cache.opening import cached_committee
from eyespot.distill.cache.reader import COMPARED
from eyespot.distill.committee import Committee
from toy_encoders import ToyEncoder

COUNT, VIEWS = 5, 2
FABRIC = Fabric(accelerator="cpu", devices=1)


def paint(file: Path, red: int) -> None:
    Image.new("RGB", (32, 32), (red, 0, 0)).save(file)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    for number in range(COUNT):
        paint(tmp_path / f"pictures/{number}.bmp", 10 * number)
    return tmp_path


def opened(folder: Path, comparing: bool = False) -> tuple[CachedCommittee, PictureLoader]:
    loader = PictureLoader(DataConfig(sources=[str(folder / "pictures")], size=32, views=VIEWS, workers=0), 5)
    committee = Committee({"toy": ToyEncoder("toy")})
    return cached_committee(committee, loader, CacheConfig(folder=str(folder / "cache")), "32-true", comparing), loader


def built(folder: Path) -> int:
    """How many rows had to be computed."""
    return build_cache(*opened(folder), FABRIC).computed


def make_old(folder: Path) -> None:
    """The cache as versions wrote it that did not note what was in the pictures."""
    for shard in folder.glob("cache/toy/rows-*.safetensors"):
        tensors = load_file(shard)
        del tensors["pictures"]
        save_file(tensors, shard)


def test_only_what_has_changed_is_computed_again_and_named(folder: Path) -> None:
    assert built(folder) == COUNT * VIEWS
    paint(folder / "pictures/3.bmp", 200)
    with pytest.warns(UserWarning, match=r"1 of 5 pictures have changed since .*3\.bmp.*computed again"):
        committee, loader = opened(folder)
    live = Committee({"toy": ToyEncoder("toy")})
    for step in range(2):
        batch = loader.batch(step)
        assert torch.equal(committee(batch)["toy"].patches, live(batch)["toy"].patches.bfloat16().float())
    assert committee.committee.teachers["toy"].calls == VIEWS
    committee.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert built(folder) == 0


def test_what_was_computed_first_holds_again_when_the_picture_does(folder: Path) -> None:
    built(folder)
    paint(folder / "pictures/0.bmp", 200)
    with pytest.warns(UserWarning, match="1 of 5"):
        assert built(folder) == VIEWS
    paint(folder / "pictures/0.bmp", 0)
    assert built(folder) == 0


def test_rows_of_another_picture_in_a_shard_are_not_taken(folder: Path) -> None:
    """The number stands beside each row, so a shard from elsewhere brings no features of other pictures."""
    built(folder)
    for shard in folder.glob("cache/toy/rows-*.safetensors"):
        tensors = load_file(shard)
        tensors["pictures"][4] += 1
        save_file(tensors, shard)
    with pytest.warns(UserWarning, match="1 of 5"):
        committee, _ = opened(folder)
    assert np.flatnonzero(~committee.caches["toy"].reader.has(np.arange(COUNT * VIEWS))).tolist() == [4]


def test_an_old_cache_is_refused_until_it_was_compared(folder: Path) -> None:
    built(folder)
    make_old(folder)
    with pytest.raises(CacheError, match=r"earlier version.*--verify 100"):
        opened(folder)
    assert verify(*opened(folder, comparing=True), FABRIC, 100).ok
    assert built(folder) == 0
    paint(folder / "pictures/2.bmp", 200)
    with pytest.warns(UserWarning, match=r"1 of 5 .*2\.bmp"):
        assert built(folder) == VIEWS


def test_an_old_cache_of_other_pictures_is_not_taken_over(folder: Path) -> None:
    built(folder)
    make_old(folder)
    paint(folder / "pictures/2.bmp", 200)
    found = verify(*opened(folder, comparing=True), FABRIC, 100)
    assert len(found.different) == VIEWS and "2.bmp" in found.different[0]
    assert not (folder / "cache/toy" / COMPARED).exists()
    with pytest.raises(CacheError, match="--verify 100"):
        opened(folder)
