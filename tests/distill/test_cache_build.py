import errno

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image

from eyespot.data import DataConfig, PictureLoader, ViewConfig
from eyespot.distill.cache import (
    CachedCommittee,
    CacheError,
    DamagedCacheWarning,
    build_cache,
    estimate,
    first_batches,
    store,
    verify,
)
from eyespot.distill.cache.build import part_of, there_in_all
from eyespot.distill.committee import Committee
from toy_encoders import ToyEncoder

COUNT, VIEWS = 11, 3


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(COUNT):
        noise = np.random.default_rng(number).integers(0, 256, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((60, 50), Image.Resampling.BICUBIC).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def fabric():
    return Fabric(accelerator="cpu", devices=1)


def loader_of(pictures, workers=0, **view):
    data = DataConfig(sources=[str(pictures)], size=32, views=VIEWS, workers=workers, view=ViewConfig(**view))
    return PictureLoader(data, 4)


def cached(folder, loader, **how):
    members = {"fine": ToyEncoder("fine", stride=4), "coarse": ToyEncoder("coarse", stride=16)}
    setting = {"data": loader.fingerprint()}
    lengths = [len(source) for source in loader.sources]
    return CachedCommittee(Committee(members), folder, setting=setting, source_lengths=lengths, views=VIEWS, **how)


def calls(committee):
    return {name: teacher.calls for name, teacher in committee.items()}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_built_cache_is_all_that_training_asks_for(pictures, tmp_path, fabric, workers):
    loader = loader_of(pictures, workers)
    seen = []
    built = build_cache(
        cached(tmp_path, loader), loader, fabric, batch_size=4, progress=lambda done, of: seen.append((done, of))
    )
    assert (built.rows, built.computed, built.unreadable) == (33, 33, {})
    assert seen == [(min(4 * n, 33), 33) for n in range(1, 10)]
    committee, live = cached(tmp_path, loader), Committee(dict(cached(tmp_path / "none", loader).items()))
    for step in range(9):  # the whole of it, in the order of training
        batch = loader.batch(step)
        for name, features in committee(batch).items():
            assert torch.equal(features.patches, live(batch)[name].patches.bfloat16().float())
    assert calls(committee) == {"fine": 0, "coarse": 0}


def test_it_goes_on_where_it_stood(pictures, tmp_path, fabric, monkeypatch):
    monkeypatch.setattr(store, "SHARD_BYTES", 1)
    loader = loader_of(pictures)

    class Stop(Exception):
        pass

    def stop(done, of):
        if done == 20:
            raise Stop

    with pytest.raises(Stop):
        build_cache(cached(tmp_path, loader), loader, fabric, batch_size=4, progress=stop)
    committee = cached(tmp_path, loader)
    assert build_cache(committee, loader, fabric).computed == 13
    assert calls(committee) == {"fine": 13, "coarse": 13}
    assert build_cache(cached(tmp_path, loader), loader, fabric).computed == 0


def test_parts_make_the_whole(pictures, tmp_path, fabric):
    loader = loader_of(pictures)
    built = [build_cache(cached(tmp_path, loader), loader, fabric, part=part, parts=4) for part in (2, 0, 3, 1)]
    assert sum(one.rows for one in built) == sum(one.computed for one in built) == 33
    assert there_in_all(cached(tmp_path, loader), np.arange(33)).all()


@pytest.mark.parametrize("parts", [1, 2, 7, 40])
def test_parts_are_nearly_equal_and_do_not_overlap(parts):
    pieces = [part_of(33, part, parts) for part in range(parts)]
    assert np.array_equal(np.concatenate(pieces), np.arange(33))
    assert max(map(len, pieces)) - min(map(len, pieces)) <= 1
    with pytest.raises(ValueError, match="none of them"):
        part_of(33, parts, parts)


def test_a_teacher_that_has_a_row_does_not_compute_it_again(pictures, tmp_path, fabric):
    loader = loader_of(pictures)
    build_cache(cached(tmp_path, loader), loader, fabric)
    for path in (tmp_path / "coarse").glob("rows-*"):
        path.unlink()
    committee = cached(tmp_path, loader)
    assert build_cache(committee, loader, fabric).computed == 33
    assert calls(committee) == {"fine": 0, "coarse": 33}


def test_an_unreadable_picture_is_told_and_left_out(pictures, tmp_path, fabric):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for file in pictures.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "04.png").write_bytes(b"broken")
    loader = loader_of(folder)
    built = build_cache(cached(tmp_path / "cache", loader), loader, fabric, batch_size=5)
    assert built.computed == 33 and len(built.unreadable) == 1
    assert "04.png" in next(iter(built.unreadable))
    committee = cached(tmp_path / "cache", loader)
    assert there_in_all(committee, np.arange(33)).sum() == 30
    for step in range(9):
        committee(loader.batch(step))
    assert calls(committee) == {"fine": 0, "coarse": 0}, "training does not see it either"


def test_a_full_disk_ends_a_build(pictures, tmp_path, fabric, monkeypatch):
    def no_room(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "write_shard", no_room)
    loader = loader_of(pictures)
    with pytest.raises(CacheError, match=r"No space left on device.*make room there"):
        build_cache(cached(tmp_path, loader), loader, fabric)


def test_the_sample_is_the_same_in_every_process(pictures):
    one = PictureLoader(loader_of(pictures).config, 4, rank=0, world_size=2)
    other = PictureLoader(loader_of(pictures).config, 4, rank=1, world_size=2)
    for a, b in zip(first_batches(one, 12, 4), first_batches(other, 12, 4), strict=True):
        assert torch.equal(a["images"], b["images"])


# Estimates


@pytest.mark.parametrize("how", [{}, {"store": "int8"}, {"rank": 2}])
def test_the_estimated_size_is_the_size(pictures, tmp_path, fabric, how):
    loader = loader_of(pictures)
    found = estimate(cached(tmp_path, loader, **how), loader, fabric, batches=1)
    assert not list(tmp_path.iterdir()), "nothing is written"
    assert found.rows == 33 and all(one.missing == 33 for one in found.teachers.values())
    build_cache(cached(tmp_path, loader, **how), loader, fabric)
    for name, one in found.teachers.items():
        paths = list((tmp_path / name).glob("rows-*"))
        on_disk = sum(path.stat().st_size for path in paths)
        assert one.bytes < on_disk < one.bytes + 400 * len(paths)  # the headers
    again = estimate(cached(tmp_path, loader, **how), loader, fabric, batches=1)
    assert again.bytes == 0 and again.seconds == 0


def test_the_estimated_time_is_that_of_the_slower_side(pictures, tmp_path, fabric):
    loader = loader_of(pictures)
    found = estimate(cached(tmp_path, loader), loader, fabric, part=0, parts=3, batches=1)
    looking = 11 * sum(one.seconds for one in found.teachers.values())
    assert found.rows == 11 and found.seconds == pytest.approx(looking + 11 * found.picture_seconds)
    workers = type(found)(found.rows, found.teachers, 1000.0, 4, found.free)
    assert workers.seconds == pytest.approx(11 * 1000 / 4)


# Verification


def test_what_was_built_is_what_the_teachers_say(pictures, tmp_path, fabric):
    loader = loader_of(pictures)
    build_cache(cached(tmp_path, loader), loader, fabric, batch_size=4)
    found = verify(cached(tmp_path, loader), loader, fabric, 12, batch_size=5)
    assert found.ok and (found.stored, found.compared, found.features) == (33, 12, 24)
    assert found.identical == 24 and found.largest == 0 and found.shards == 2


def test_rows_of_other_teachers_are_found(pictures, tmp_path, fabric):
    """As if the weights had changed without anything noticing."""
    loader = loader_of(pictures)
    build_cache(cached(tmp_path, loader), loader, fabric)
    committee = cached(tmp_path, loader)
    with torch.no_grad():
        committee.committee.teachers["fine"].embed.weight.mul_(1.1)
    found = verify(committee, loader, fabric, 33)
    assert not found.ok and found.identical == 33 and found.largest > 0.02
    assert len(found.different) == 33 and all(line.startswith("fine, ") for line in found.different)
    assert any("07.png, view 2" in line for line in found.different)


def test_rows_of_other_views_are_found(pictures, tmp_path, fabric):
    build_cache(cached(tmp_path, loader_of(pictures)), loader_of(pictures), fabric)
    other = loader_of(pictures, scale=(0.1, 0.2))
    assert len(verify(cached(tmp_path, other), other, fabric, 10).different) >= 18


def test_damage_is_found_named_and_can_be_built_again(pictures, tmp_path, fabric):
    loader = loader_of(pictures)
    build_cache(cached(tmp_path, loader), loader, fabric)
    committee = cached(tmp_path, loader)
    (path,) = (tmp_path / "coarse").glob("rows-*")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.warns(DamagedCacheWarning):
        found = verify(committee, loader, fabric, 5)
    assert not found.ok and found.compared == 0 and found.stored == 0
    assert len(found.removed) == 1 and path.name in found.removed[0]
    build_cache(cached(tmp_path, loader), loader, fabric)
    assert verify(cached(tmp_path, loader), loader, fabric, 5).ok


def test_an_empty_cache_cannot_be_verified(pictures, tmp_path, fabric):
    loader = loader_of(pictures)
    with pytest.raises(CacheError, match="build the cache first"):
        verify(cached(tmp_path, loader), loader, fabric, 5)
