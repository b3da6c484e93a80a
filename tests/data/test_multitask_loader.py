import dataclasses
import json
import pickle

import pytest
import torch

from eyespot.data.labelled.samples import MultiTaskSample
from eyespot.data.loading.batch import MapBatch
from eyespot.data.loading.batch_loader import BrokenSourceError
from eyespot.data.loading.maps import MultiTaskLoader
from eyespot.data.sets import open_multitask
from eyespot.data.sources.decode import PictureError
from eyespot.data.views.config import PairedViewConfig
from eyespot.data.views.paired import paired_view
from eyespot.dense_tasks import dense_task
from eyespot.engine.trainer import split_batch

VIEW = PairedViewConfig(size=(24, 32))


@pytest.fixture(scope="module")
def toybox():
    return open_multitask("toybox:11@32", "train")


def take(loader, count, start=0):
    batches = loader.batches(start)
    taken = [next(batches) for _ in range(count)]
    batches.close()
    return taken


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        if name == "maps":
            assert value.keys() == other["maps"].keys()
            assert all(torch.equal(label, other["maps"][task]) for task, label in value.items())
        else:
            same = torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
            assert same, name


def test_batch_is_what_the_contract_says(toybox):
    loader = MultiTaskLoader(toybox, VIEW, 4, seed=5)
    batch = loader.batch(3)
    assert list(batch) == ["step", "images", "maps", "source", "index", "view", "failures"]
    assert set(batch) == MapBatch.__required_keys__
    assert batch["step"] == 3 and batch["failures"] == []
    assert batch["images"].shape == (4, 3, 24, 32) and batch["images"].dtype == torch.uint8
    assert list(batch["maps"]) == list(toybox.tasks)
    assert all(len(label) == 4 and label.shape[-2:] == (24, 32) for label in batch["maps"].values())
    for name in ("source", "index", "view"):
        assert batch[name].shape == (4,) and batch[name].dtype == torch.int64
    for row in range(4):
        index, view = int(batch["index"][row]), int(batch["view"][row])
        expected = paired_view(toybox.read(index), toybox.tasks, VIEW, 5, 0, index, view)
        assert torch.equal(batch["images"][row], expected.image)
        assert all(torch.equal(batch["maps"][task][row], label) for task, label in expected.maps.items())
    assert loader.picture_count == 11 and loader.sources == [toybox]


def test_workers_do_not_change_the_batches(toybox):
    alone, helped = (take(MultiTaskLoader(toybox, VIEW, 4, seed=1, workers=workers), 5) for workers in (0, 2))
    for one, other in zip(alone, helped, strict=True):
        assert_equal(one, other)


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_continues_the_same_batches(toybox, workers):
    loader = MultiTaskLoader(toybox, VIEW, 4, workers=workers)
    whole, resumed = take(loader, 6), take(loader, 2, start=4)
    for one, other in zip(whole[4:], resumed, strict=True):
        assert_equal(one, other)
        assert_equal(one, loader.batch(one["step"]))


def test_ranks_share_the_batch_of_one_process(toybox):
    whole = MultiTaskLoader(toybox, VIEW, 6).batch(3)
    parts = [MultiTaskLoader(toybox, VIEW, 6, rank, 2).batch(3) for rank in range(2)]
    for name in ("images", "source", "index", "view"):
        assert torch.equal(torch.cat([part[name] for part in parts]), whole[name])
    for task, label in whole["maps"].items():
        assert torch.equal(torch.cat([part["maps"][task] for part in parts]), label)


def test_all_pictures_come_once_before_one_comes_twice(toybox):
    indices = torch.cat([batch["index"] for batch in take(MultiTaskLoader(toybox, VIEW, 11), 2)])
    assert sorted(indices[:11].tolist()) == sorted(indices[11:].tolist()) == list(range(11))
    first, again = take(MultiTaskLoader(toybox, VIEW, 11), 2)
    assert (first["view"].unique().tolist(), again["view"].unique().tolist()) == ([0], [1])


def test_another_seed_gives_another_order_and_other_views(toybox):
    one, other = (MultiTaskLoader(toybox, VIEW, 11, seed=seed).batch(0) for seed in (0, 1))
    assert not torch.equal(one["index"], other["index"])
    rows = [int((batch["index"] == 0).nonzero()[0]) for batch in (one, other)]
    assert not torch.equal(one["images"][rows[0]], other["images"][rows[1]])


def test_the_trainer_can_cut_a_batch(toybox):
    batch = MultiTaskLoader(toybox, VIEW, 6).batch(0)
    first, second = split_batch(batch, 2)
    assert len(first["images"]) == len(second["images"]) == 3
    for task, label in batch["maps"].items():
        assert torch.equal(torch.cat([first["maps"][task], second["maps"][task]]), label)


class Flat:
    """Pictures of one value, some of them broken."""

    name = "flat"

    def __init__(self, count, broken=()):
        self.count, self.broken, self.reads = count, set(broken), []
        self.tasks = {"depth": dense_task("depth")}

    def __len__(self):
        return self.count

    def read(self, index):
        self.reads.append(index)
        if index in self.broken:
            raise PictureError(self.picture_name(index), "torn: in two")
        return MultiTaskSample(
            torch.full((3, 8, 8), index, dtype=torch.uint8), {"depth": torch.full((8, 8), index + 1.0)}
        )

    def picture_name(self, index):
        return f"picture {index}"

    def fingerprint(self):
        return str(self.count)


PLAIN = PairedViewConfig.plain((8, 8))


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_pictures_are_replaced_counted_and_named(workers):
    loader = MultiTaskLoader(Flat(10, broken=[2, 8, 9]), PLAIN, 10, workers=workers)
    for step, batch in enumerate(take(loader, 2)):
        assert sorted(batch["index"].tolist()) == [0, 0, 0, 1, 3, 3, 4, 5, 6, 7]
        assert torch.equal(batch["images"][:, 0, 0, 0].long(), batch["index"])
        assert torch.equal(batch["maps"]["depth"][:, 0, 0].long(), batch["index"] + 1)
        assert sorted(batch["failures"]) == [f"picture {index}: torn: in two" for index in (2, 8, 9, 9)]
        assert_equal(batch, loader.batch(step))
    assert loader.failures == {f"picture {index}": "torn: in two" for index in (2, 8, 9)}


@pytest.mark.parametrize("workers", [0, 1])
def test_data_of_broken_pictures_are_an_error(workers):
    with pytest.raises(BrokenSourceError, match=r"^5 pictures of 'flat' in a row .* torn"):
        take(MultiTaskLoader(Flat(5, broken=range(5)), PLAIN, 2, workers=workers), 1)


def test_kept_pictures_are_read_once_and_change_nothing(toybox):
    data = Flat(6)
    kept, read = (MultiTaskLoader(data, VIEW, 6, keep_decoded=keep) for keep in (True, False))
    first = take(kept, 3)
    assert sorted(data.reads) == list(range(6))
    for one, other in zip(first, take(read, 3), strict=True):
        assert_equal(one, other)


def test_the_config_holds_all_that_makes_the_batches_and_is_plain(toybox):
    loader = MultiTaskLoader(toybox, VIEW, 4, seed=7, workers=2)
    plain = dataclasses.asdict(loader.config) | {"workers": None, "keep_decoded": None}
    assert json.loads(json.dumps(plain))["view"]["size"] == [24, 32]
    same = MultiTaskLoader(toybox, VIEW, 4, seed=7, keep_decoded=True)
    assert dataclasses.asdict(same.config) | {"workers": None, "keep_decoded": None} == plain
    chosen = open_multitask("toybox:11@32?tasks=depth", "train")
    for other in (
        MultiTaskLoader(toybox, VIEW, 4, seed=8),
        MultiTaskLoader(toybox, PairedViewConfig(size=(24, 32), flip=0), 4, seed=7),
        MultiTaskLoader(chosen, VIEW, 4, seed=7),
    ):
        assert dataclasses.asdict(other.config) | {"workers": None, "keep_decoded": None} != plain
    assert loader.config.workers == 2
    assert loader.fingerprint() == same.fingerprint() != MultiTaskLoader(chosen, VIEW, 4).fingerprint()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 6, "world_size": 4}, "multiple of 4"),
        ({"batch_size": 6, "rank": 2, "world_size": 2}, "between 0 and 1"),
        ({"batch_size": 0}, "at least 1"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(toybox, arguments, message):
    with pytest.raises(ValueError, match=message):
        MultiTaskLoader(toybox, VIEW, **arguments)


def test_global_generators_are_left_alone(toybox):
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    take(MultiTaskLoader(toybox, VIEW, 4, workers=1), 2)
    MultiTaskLoader(toybox, VIEW, 4).batch(0)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_loader_can_be_sent_to_another_process(toybox):
    loader = MultiTaskLoader(toybox, VIEW, 4)
    reader = pickle.loads(pickle.dumps(loader._reader))
    assert_equal(reader[loader._draws(1)], loader.batch(1))
