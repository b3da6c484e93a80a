"""What a cache refuses, what it repairs, and what it does when it cannot write."""

import errno
import json
import resource

import pytest
import torch
from cache_toys import EVERYTHING, FIRST, SECOND, cached, calls, equal, filled, shards, teachers

from eyespot.distill.cache import CacheError, CacheMismatchError, DamagedCacheWarning, store
from eyespot.distill.cache import shards as shards_module
from eyespot.encoders import load_encoder
from eyespot.features import Features
from processes import start_process
from toy_encoders import ToyEncoder

# Refusals


def test_a_cache_for_something_else_is_refused_with_the_difference(tmp_path):
    filled(tmp_path)
    others = {
        "data: 'd' -> 'other'": lambda: cached(tmp_path, data="other"),
        "view.flip: 0.5 -> 0.25": lambda: cached(tmp_path, view={"flip": 0.25}),
        "size: 48 -> 64": lambda: cached(tmp_path, size=64),
        "max_grid: None -> 4": lambda: cached(tmp_path, max_grid=4),
        "teacher.weights: '": lambda: cached(tmp_path, changed_weights()),
        "teacher.model: 'fine' -> 'fine?global_pool=avg'": lambda: cached(tmp_path, renamed()),
        "store: 'bfloat16' -> 'int8'": lambda: cached(tmp_path, how={"store": "int8"}),
        "rank: None -> 2": lambda: cached(tmp_path, how={"rank": 2}),
    }
    for difference, open_it in others.items():
        with pytest.raises(CacheMismatchError) as refusal:
            open_it()
        assert difference in str(refusal.value) and str(tmp_path / "fine") in str(refusal.value)
        assert len(str(refusal.value).splitlines()) == 3, "one difference, and what to do"
    assert calls(cached(tmp_path)) == {"fine": 0, "coarse": 0}


def changed_weights():
    members = teachers()
    with torch.no_grad():
        members["fine"].embed.bias[0] += 1e-6
    return members


def renamed():
    members = teachers()
    members["fine"].name = "fine?global_pool=avg"
    return members


def other_code():
    members = teachers()
    members["fine"].code = "other"
    return members


def test_other_code_is_another_teacher_but_for_caches_that_never_knew(tmp_path):
    filled(tmp_path)
    with pytest.raises(CacheMismatchError, match=r"teacher\.code: '"):
        cached(tmp_path, other_code())
    for file in tmp_path.glob("*/cache.json"):
        description = json.loads(file.read_text())
        del description["setting"]["teacher"]["code"]
        file.write_text(json.dumps(description))
    assert calls(cached(tmp_path, other_code())) == {"fine": 0, "coarse": 0}


def test_two_that_begin_with_different_settings_do_not_mix(tmp_path):
    first, second = cached(tmp_path), cached(tmp_path, data="other")
    first(FIRST)
    with pytest.raises(CacheMismatchError, match="data: 'd' -> 'other'"):
        second(FIRST)


def test_options_of_one_model_are_told_apart(tmp_path):
    """The weights are the same, what the teacher says is not."""
    token, mean = (
        load_encoder(f"timm/vit_tiny_patch16_dinov3_qkvb?depth=1&global_pool={pool}", pretrained=False)
        for pool in ("token", "avg")
    )
    mean.load_state_dict(token.state_dict())
    committee = cached(tmp_path, {"a": token})
    committee(FIRST)
    with pytest.raises(CacheMismatchError, match=r"global_pool=token.*-> .*global_pool=avg"):
        cached(tmp_path, {"a": mean})


def test_a_file_that_teaches_may_be_moved(tmp_path):
    def from_file(place):
        place.parent.mkdir()
        place.write_bytes(b"weights")
        teacher = ToyEncoder("fine")
        teacher.name, teacher.files = f"onnx/{place}?size=224", [place]
        return {"fine": teacher}

    filled(tmp_path / "cache", members=from_file(tmp_path / "here" / "depth.onnx"))
    cached(tmp_path / "cache", from_file(tmp_path / "there" / "depth.onnx"))
    with pytest.raises(CacheMismatchError, match=r"onnx/depth.onnx.* -> .*onnx/other.onnx"):
        cached(tmp_path / "cache", from_file(tmp_path / "elsewhere" / "other.onnx"))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": 1}'])
def test_a_damaged_description_is_named(tmp_path, content):
    filled(tmp_path)
    (tmp_path / "fine" / "cache.json").write_text(content)
    with pytest.raises(CacheError, match=r"cache.json cannot be read.*; delete .*fine"):
        cached(tmp_path)


def test_another_version_is_refused(tmp_path):
    filled(tmp_path)
    file = tmp_path / "fine" / "cache.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 99}))
    with pytest.raises(CacheError, match="another version"):
        cached(tmp_path)


def test_damaged_components_are_named(tmp_path):
    filled(tmp_path, how={"rank": 2})
    file = tmp_path / "fine" / "projection.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(CacheError, match=r"projection.safetensors is damaged.*delete"):
        cached(tmp_path, how={"rank": 2})


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
    how = {"store": "float16"}
    committee = cached(tmp_path, {"good": ToyEncoder("good"), "bad": kind("bad teacher")}, how=how)
    with pytest.raises(ValueError, match="bad teacher gives features that are NaN, infinite or beyond float16"):
        committee(FIRST)
    committee.flush()
    assert not shards(tmp_path, "bad") and len(shards(tmp_path, "good")) == 1


def test_it_holds_one_size(tmp_path):
    with pytest.raises(ValueError, match="teacher_sizes"):
        cached(tmp_path)(FIRST, size=64)


# Damage: named, computed again, and the result as if nothing had happened


def flip_in_the_middle(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


DAMAGES = {
    "flipped": flip_in_the_middle,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "garbage": lambda path: path.write_bytes(b"\x05" * 3000),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("how", [{}, {"store": "int8", "rank": 2}])
def test_a_damaged_shard_is_rebuilt(tmp_path, damage, how):
    undisturbed = filled(tmp_path, how=how)
    (path,) = shards(tmp_path)
    DAMAGES[damage](path)
    with pytest.warns(DamagedCacheWarning, match=str(path)):
        committee = cached(tmp_path, how=how)
        assert equal(committee(EVERYTHING), undisturbed)
    assert 0 < calls(committee)["fine"] <= 16 and calls(committee)["coarse"] == 0
    committee(EVERYTHING)
    committee.flush()
    again = cached(tmp_path, how=how)
    assert equal(again(EVERYTHING), undisturbed)
    assert calls(again)["fine"] <= 16


def test_a_shard_deleted_while_open_is_rebuilt(tmp_path):
    undisturbed = filled(tmp_path)
    committee = cached(tmp_path)
    shards(tmp_path)[0].unlink()
    assert equal(committee(EVERYTHING), undisturbed)
    assert calls(committee) == {"fine": 16, "coarse": 0}


# Writing


def test_shards_are_bounded_by_bytes_and_by_time(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(store.time, "monotonic", lambda: now[0])
    committee = cached(tmp_path)
    committee(FIRST)
    assert not shards(tmp_path)
    now[0] += store.SHARD_SECONDS
    committee(FIRST)  # nothing new, but what waits is old
    assert len(shards(tmp_path)) == 1
    monkeypatch.setattr(store, "SHARD_BYTES", 1)
    committee(SECOND)
    assert len(shards(tmp_path)) == 2


def no_room(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.filterwarnings("ignore:cannot write:RuntimeWarning")  # of the other teacher
def test_a_full_disk_does_not_end_a_training(tmp_path, monkeypatch):
    reference = filled(tmp_path / "good")
    committee = cached(tmp_path / "full")
    committee(FIRST)
    with monkeypatch.context() as full:
        full.setattr(store, "write_shard", no_room)
        full.setattr(store, "SHARD_BYTES", 1)
        with pytest.warns(RuntimeWarning, match=r"cannot write 4 rows .*fine.*No space left.*Training goes on"):
            assert equal(committee(SECOND), cached(tmp_path / "good")(SECOND))
    assert equal(committee(EVERYTHING), reference)  # when there is room again, what comes is kept again
    committee.flush()
    again = cached(tmp_path / "full")
    assert equal(again(EVERYTHING), reference) and calls(again) == {"fine": 0, "coarse": 0}


def test_a_full_disk_ends_what_must_be_kept(tmp_path, monkeypatch):
    committee = cached(tmp_path)
    committee.must_keep = True
    committee(FIRST)
    monkeypatch.setattr(store, "write_shard", no_room)
    with pytest.raises(CacheError, match=r"cannot write 4 rows to the teacher cache in .*fine.*make room"):
        committee.flush()


def test_a_disk_that_really_cannot_take_more(tmp_path):
    """A file size limit is met where a full disk is, inside the library that writes the shard."""
    process = start_process(_meets_the_limit, tmp_path)
    process.join()
    assert process.exitcode == 0


def _meets_the_limit(folder):
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    with pytest.raises(OSError, match="File too large"):
        shards_module.write_shard(folder, torch.arange(3), torch.zeros(3, 1000, dtype=torch.uint8))
    assert not list(folder.iterdir())


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CacheError, match="cannot make the teacher cache in"):
        cached(tmp_path / "file")(FIRST)
