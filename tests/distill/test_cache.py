import json

import pytest
import torch
from toy_encoders import ToyEncoder, pictures

from eyespot.distill.cache import CachedCommittee
from eyespot.distill.committee import Committee
from eyespot.encoders import load_encoder
from eyespot.features import Features

LENGTHS, VIEWS = [5, 3], 2


def teachers(**changes):
    return {"fine": ToyEncoder("fine", stride=4, **changes), "coarse": ToyEncoder("coarse", stride=16)}


def cached(folder, members=None, max_grid=None, **setting):
    return CachedCommittee(
        Committee(members or teachers(), max_grid),
        folder,
        setting={"data": "d", **setting},
        source_lengths=LENGTHS,
        views=VIEWS,
    )


def batch(*rows):
    """(source, index, view) triples; the picture follows from them, as in training."""
    source, index, view = (torch.tensor(column) for column in zip(*rows, strict=True))
    images = torch.cat([pictures(1, key=f"{row}") for row in rows])
    return {"images": images, "source": source, "index": index, "view": view, "step": 0}


FIRST = batch((0, 0, 0), (0, 4, 1), (1, 0, 0), (1, 2, 1))
SECOND = batch((0, 0, 1), (0, 4, 1), (1, 1, 0), (0, 0, 0))  # two of these were in the first


def calls(committee):
    return {name: teacher.calls for name, teacher in committee.items()}


def equal(one, other):
    return all(
        torch.equal(one[name].summary, other[name].summary) and torch.equal(one[name].patches, other[name].patches)
        for name in one
    )


def test_the_same_as_live_to_float16(tmp_path):
    live = Committee(teachers())
    committee = cached(tmp_path)
    for rows in (FIRST, SECOND, FIRST):
        for name, features in committee(rows).items():
            wanted = live(rows)[name]
            assert features.summary.dtype == features.patches.dtype == torch.float32
            assert torch.equal(features.summary, wanted.summary.half().float())
            assert torch.equal(features.patches, wanted.patches.half().float())


def test_every_view_is_computed_once(tmp_path):
    committee = cached(tmp_path)
    counted = []
    for rows in (FIRST, FIRST, SECOND, SECOND, FIRST):
        committee(rows)
        counted.append(calls(committee)["fine"])
    assert counted == [4, 4, 6, 6, 6]
    assert calls(committee)["coarse"] == 6


def test_a_picture_twice_in_a_batch(tmp_path):
    rows = batch((0, 1, 0), (0, 1, 0))
    features = cached(tmp_path)(rows)
    assert torch.equal(features["fine"].patches[0], features["fine"].patches[1])


def test_it_survives_being_opened_again(tmp_path):
    before = cached(tmp_path)(FIRST)
    reopened = cached(tmp_path)
    assert equal(reopened(FIRST), before)
    assert calls(reopened) == {"fine": 0, "coarse": 0}
    reopened(SECOND)
    assert calls(reopened) == {"fine": 2, "coarse": 2}


def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path):
    whole = cached(tmp_path / "whole")
    uninterrupted = [whole(rows) for rows in (FIRST, SECOND, FIRST)]
    resumed = []
    for rows in (FIRST, SECOND, FIRST):
        resumed.append(cached(tmp_path / "resumed")(rows))
    assert all(equal(one, other) for one, other in zip(uninterrupted, resumed, strict=True))


def test_every_source_index_and_view_has_its_own_row(tmp_path):
    everything = [(0, i, v) for i in range(5) for v in range(2)] + [(1, i, v) for i in range(3) for v in range(2)]
    committee = cached(tmp_path)
    together = committee(batch(*everything))
    assert calls(committee)["fine"] == 16
    for number, row in enumerate(everything):
        assert torch.equal(committee(batch(row))["fine"].patches[0], together["fine"].patches[number])
    assert calls(committee)["fine"] == 16


def folders(committee):
    return {name: store.folder for name, store in committee.stores.items()}


def test_another_setting_uses_another_folder(tmp_path):
    reference = folders(cached(tmp_path))
    assert folders(cached(tmp_path)) == reference and reference["fine"] != reference["coarse"]
    assert all(json.loads((place / "setting.json").read_text())["data"] == "d" for place in reference.values())
    others = {
        "data": cached(tmp_path, data="other"),
        "views": cached(tmp_path, view={"flip": 0.5}),
        "grid": cached(tmp_path, max_grid=4),
        "weights": cached(tmp_path, changed_weights()),
        "name": cached(tmp_path, renamed()),
    }
    seen = {reference["fine"]}
    for what, other in others.items():
        assert folders(other)["fine"] not in seen, what
        seen.add(folders(other)["fine"])


def changed_weights():
    members = teachers()
    with torch.no_grad():
        members["fine"].embed.bias[0] += 1e-6
    return members


def renamed():
    members = teachers()
    members["fine"].name = "fine?global_pool=avg"
    return members


def test_options_of_one_model_do_not_share_a_folder(tmp_path):
    """The weights are the same, what the teacher says is not."""
    token, mean = (
        load_encoder(f"timm/vit_tiny_patch16_dinov3_qkvb?depth=1&global_pool={pool}", pretrained=False)
        for pool in ("token", "avg")
    )
    mean.load_state_dict(token.state_dict())
    assert folders(cached(tmp_path, {"a": token}))["a"] != folders(cached(tmp_path, {"a": mean}))["a"]


class Broken(ToyEncoder):
    poison = float("nan")

    def _encode(self, images):
        features = super()._encode(images)
        patches = features.patches.clone()
        patches[-1, 0, 0, 0] = self.poison
        return Features(features.summary, patches)


class Huge(Broken):
    poison = 1e5  # finite, but not in float16


@pytest.mark.parametrize("kind", [Broken, Huge])
def test_a_broken_teacher_is_refused_and_leaves_no_row(tmp_path, kind):
    committee = cached(tmp_path, {"good": ToyEncoder("good"), "bad": kind("bad teacher")})
    with pytest.raises(ValueError, match="bad teacher gives features that are NaN, infinite or beyond float16"):
        committee(FIRST)
    assert committee.stores["bad"].filled.sum() == 0 and committee.stores["good"].filled.sum() == 4


def test_it_holds_one_size(tmp_path):
    with pytest.raises(ValueError, match="teacher_sizes"):
        cached(tmp_path)(FIRST, size=64)


def test_files_are_sparse_and_of_full_length(tmp_path):
    committee = CachedCommittee(
        Committee({"fine": ToyEncoder("fine", stride=4)}), tmp_path, setting={}, source_lengths=[100_000], views=8
    )
    committee(batch((0, 99_999, 7)))
    patches = committee.stores["fine"].folder / "patches.float16"
    assert patches.stat().st_size == 800_000 * 5 * 8 * 8 * 2
    assert patches.stat().st_blocks * 512 < 10_000_000


def test_stays_frozen_inside_a_training_task(tmp_path):
    committee = cached(tmp_path)
    committee.train()
    features = committee(FIRST)
    assert not any(teacher.training for _, teacher in committee.items())
    assert not any(one.patches.requires_grad for one in features.values())
