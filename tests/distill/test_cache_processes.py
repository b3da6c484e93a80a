"""Several real processes on one folder: filling it together, killed in the middle, training at the same time."""

import os
import signal

import numpy as np
import pytest
import torch

from eyespot.distill.cache import CachedCommittee, store
from eyespot.distill.cache.shards import read_head
from eyespot.distill.committee import Committee
from processes import start_process, wait_until
from toy_encoders import ToyEncoder, pictures

LENGTH, VIEWS, BATCH = 60, 2, 4


def cached(folder, **how):
    members = {"fine": ToyEncoder("fine", stride=4), "coarse": ToyEncoder("coarse", stride=16)}
    return CachedCommittee(Committee(members), folder, setting={}, source_lengths=[LENGTH], views=VIEWS, **how)


def batch_of(rows):
    index, view = np.divmod(np.array(rows), VIEWS)
    images = torch.cat([pictures(1, side=32, key=f"row {row}") for row in rows])
    return {
        "images": images,
        "source": torch.zeros(len(rows), dtype=torch.long),
        "index": torch.from_numpy(index),
        "view": torch.from_numpy(view),
    }


def fill(folder, start, shard_bytes, how):
    """Asks for all rows, in an order of its own, and writes a shard whenever `shard_bytes` wait."""
    store.SHARD_BYTES = shard_bytes
    committee = cached(folder, **how)
    rows = np.roll(np.arange(LENGTH * VIEWS), -start).reshape(-1, BATCH)
    for some in rows:
        committee(batch_of(some))
    committee.flush()


def undisturbed(folder, **how):
    """Every row's features, filled by one process, and a check that a cache has just these."""
    wanted = {}
    reference = cached(folder / "undisturbed", **how)
    for some in np.arange(LENGTH * VIEWS).reshape(-1, BATCH):
        wanted[int(some[0])] = reference(batch_of(some))
    return wanted


def has_all(folder, wanted, **how):
    """Everything is there, readable, and equal; nothing has to be computed."""
    committee = cached(folder, **how)
    for first, features in wanted.items():
        found = committee(batch_of(range(first, first + BATCH)))
        for name, one in features.items():
            torch.testing.assert_close(found[name].patches, one.patches, rtol=1e-2, atol=1e-3)
            torch.testing.assert_close(found[name].summary, one.summary, rtol=1e-2, atol=1e-3)
    assert all(teacher.calls == 0 for _, teacher in committee.items())


@pytest.mark.parametrize("how", [{}, {"store": "int8", "rank": 3}])
def test_three_processes_fill_one_folder_at_once(tmp_path, how):
    """The last one begins where the first does, so that they race for the same rows and for the folder itself."""
    wanted = undisturbed(tmp_path, **({"store": "int8"} if how else {}))
    processes = [start_process(fill, tmp_path / "cache", start, 4000, how) for start in (0, 60, 0)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    committee = cached(tmp_path / "cache", **how)
    for name, cache in committee.caches.items():
        paths = list((tmp_path / "cache" / name).glob("rows-*"))
        rows = np.concatenate([read_head(path).rows for path in paths])
        assert set(rows.tolist()) == set(range(LENGTH * VIEWS)) and len(paths) > 1
        cache.reader.check_all()
        assert not cache.reader.removed
    assert not list((tmp_path / "cache").glob(".*")), "the folders of those that were not first are gone"
    if not how:  # whose first pictures the components come from depends on the race
        has_all(tmp_path / "cache", wanted)


def test_killed_in_the_middle_of_filling(tmp_path, monkeypatch):
    wanted = undisturbed(tmp_path)
    folder = tmp_path / "cache"
    for shards in (1, 4, 9):  # killed three times, each time a little later
        process = start_process(fill, folder, 0, 1500, {})
        assert wait_until(lambda n=shards: len(list(folder.glob("*/rows-*"))) >= n, process)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        stored = [row for path in folder.glob("fine/rows-*") for row in read_head(path).rows.tolist()]
        assert len(stored) == len(set(stored)), "what was stored was not computed again"
    monkeypatch.setattr(store, "SHARD_BYTES", store.SHARD_BYTES)  # `fill` sets it, here in this process
    fill(folder, 0, 1500, {})
    has_all(folder, wanted)
