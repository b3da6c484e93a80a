import copy
import json
import pickle
import shutil

import pytest
import torch
from cache_toys import EVERYTHING, FIRST, SECOND, VIEWS, batch, cached, calls, equal, filled, teachers

from eyespot.data import DataConfig, PictureLoader
from eyespot.distill.cache import CachedCommittee
from eyespot.distill.committee import Committee
from toy_encoders import ToyEncoder


@pytest.mark.parametrize(("kind", "dtype"), [("bfloat16", torch.bfloat16), ("float16", torch.float16)])
def test_the_same_as_live_but_for_the_rounding(tmp_path, kind, dtype):
    live = Committee(teachers())
    committee = cached(tmp_path, how={"store": kind})
    for rows in (FIRST, SECOND, FIRST):
        for name, features in committee(rows).items():
            wanted = live(rows)[name]
            assert features.summary.dtype == features.patches.dtype == torch.float32
            assert torch.equal(features.summary, wanted.summary.to(dtype).float())
            assert torch.equal(features.patches, wanted.patches.to(dtype).float())


def test_every_view_is_computed_once(tmp_path):
    committee = cached(tmp_path)
    counted = []
    for rows in (FIRST, FIRST, SECOND, SECOND, FIRST):
        committee(rows)
        counted.append(calls(committee)["fine"])
    assert counted == [4, 4, 6, 6, 6]
    assert calls(committee)["coarse"] == 6


def test_a_picture_twice_in_a_batch_is_computed_once(tmp_path):
    committee = cached(tmp_path)
    features = committee(batch((0, 1, 0), (0, 2, 0), (0, 1, 0)))
    assert torch.equal(features["fine"].patches[0], features["fine"].patches[2])
    assert not torch.equal(features["fine"].patches[0], features["fine"].patches[1])
    assert calls(committee)["fine"] == 2


@pytest.mark.parametrize(
    "how", [{}, {"store": "float16"}, {"store": "int8"}, {"rank": 2}, {"store": "int8", "rank": 2}]
)
def test_computed_equals_read_bit_for_bit(tmp_path, how):
    committee = cached(tmp_path, how=how)
    computed = [committee(FIRST), committee(SECOND)]
    waiting = [committee(FIRST), committee(SECOND)]
    committee.flush()
    flushed = [committee(FIRST), committee(SECOND)]
    reopened = cached(tmp_path, how=how)
    read = [reopened(FIRST), reopened(SECOND)]
    assert calls(reopened) == {"fine": 0, "coarse": 0}
    for again in (waiting, flushed, read):
        assert all(equal(one, other) for one, other in zip(computed, again, strict=True))


def test_components_give_the_teachers_own_width_and_say_what_is_kept(tmp_path):
    committee = cached(tmp_path, how={"rank": 3}, members={"fine": ToyEncoder("fine"), "narrow": ToyEncoder("n", 4, 3)})
    features = committee(FIRST)
    assert features["fine"].patches.shape == (4, 5, 4, 4) and features["narrow"].patches.shape == (4, 3, 4, 4)
    described = json.loads((tmp_path / "fine" / "cache.json").read_text())
    assert 0.5 < described["projection"]["kept_variance"] < 1
    assert described["fields"]["patches"]["shape"] == [3, 4, 4]
    assert "projection" not in json.loads((tmp_path / "narrow" / "cache.json").read_text())
    assert committee.caches["fine"].kept_variance == described["projection"]["kept_variance"]


def test_components_come_from_the_sample_if_there_is_one(tmp_path):
    sample = [EVERYTHING]
    one = cached(tmp_path / "one", how={"rank": 2, "sample": lambda: sample})
    other = cached(tmp_path / "other", how={"rank": 2, "sample": lambda: sample})
    one(FIRST)
    other(SECOND)
    assert equal(one(EVERYTHING), other(EVERYTHING))


def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path):
    whole = cached(tmp_path / "whole")
    uninterrupted = [whole(rows) for rows in (FIRST, SECOND, FIRST)]
    resumed = []
    for rows in (FIRST, SECOND, FIRST):
        committee = cached(tmp_path / "resumed")
        resumed.append(committee(rows))
        committee.flush()
    assert all(equal(one, other) for one, other in zip(uninterrupted, resumed, strict=True))


def test_every_source_index_and_view_has_its_own_row(tmp_path):
    committee = cached(tmp_path)
    together = committee(EVERYTHING)
    ids = [tuple(EVERYTHING[key][n].item() for key in ("source", "index", "view")) for n in range(16)]
    for number, row in enumerate(ids):
        assert torch.equal(committee(batch(row))["fine"].patches[0], together["fine"].patches[number])
    assert calls(committee)["fine"] == 16


# As part of a training


def test_the_teachers_are_no_part_of_the_module(tmp_path):
    """So nothing moves them to the device before they are needed, and nothing saves or trains them."""
    committee = cached(tmp_path).train()
    committee.double()
    assert not committee.state_dict() and not list(committee.parameters())
    assert all(weight.dtype == torch.float32 for _, teacher in committee.items() for weight in teacher.parameters())
    features = committee(FIRST)
    assert not any(teacher.training for _, teacher in committee.items())
    assert not any(one.patches.requires_grad for one in features.values())


def test_the_companion_reads_for_the_committee(tmp_path):
    reference = filled(tmp_path)
    committee = cached(tmp_path)
    entries = pickle.loads(pickle.dumps(committee.extra_entries))(
        *(EVERYTHING[key] for key in ("source", "index", "view"))
    )
    assert entries["cache"]["fine"]["records"].dtype == torch.uint8 and entries["cache"]["fine"]["there"].all()
    shutil.rmtree(tmp_path)  # all that is needed is in the batch
    assert equal(committee({**EVERYTHING, **entries}), reference)
    assert calls(committee) == {"fine": 0, "coarse": 0}


def test_the_companion_of_an_empty_cache_gives_nothing(tmp_path):
    committee = cached(tmp_path)
    assert committee.extra_entries(FIRST["source"], FIRST["index"], FIRST["view"]) == {"cache": {}}


def test_what_a_worker_did_not_find_is_looked_for_again_before_it_is_computed(tmp_path):
    reference = filled(tmp_path / "all")
    cached(tmp_path / "some")(FIRST)
    committee = cached(tmp_path / "some")
    committee(FIRST)
    committee.flush()
    early = committee.extra_entries(*(SECOND[key] for key in ("source", "index", "view")))
    assert early["cache"]["fine"]["there"].tolist() == [False, True, False, True]
    before = copy.deepcopy(calls(committee))
    other = cached(tmp_path / "some")  # another process computes the rest meanwhile
    other(EVERYTHING)
    other.flush()
    features = committee({**SECOND, **early})
    assert calls(committee) == before
    assert equal(features, cached(tmp_path / "all")(SECOND)) and reference


@pytest.mark.parametrize("workers", [0, 2])
def test_with_a_loader_and_its_workers(tmp_path, workers):
    def loader():
        return PictureLoader(DataConfig(sources=["toybox:6@32"], size=32, views=VIEWS, workers=workers), 4)

    def committee():
        opened = CachedCommittee(Committee(teachers()), tmp_path, setting={}, source_lengths=[6], views=VIEWS)
        pictures_of = loader()
        pictures_of.extra_entries = opened.extra_entries
        return opened, pictures_of.batches()

    live = Committee(teachers())
    first, batches = committee()
    for _ in range(4):
        rows = next(batches)
        assert {name: one.patches.bfloat16() for name, one in live(rows).items()}.keys() == first(rows).keys()
    first.flush()
    again, batches = committee()
    for _ in range(4):
        rows = next(batches)
        assert rows["cache"]["fine"]["there"].all()
        found, wanted = again(rows), live(rows)
        assert all(torch.equal(found[name].patches, wanted[name].patches.bfloat16().float()) for name in wanted)
    assert calls(again) == {"fine": 0, "coarse": 0} and calls(first)["fine"] <= 12
