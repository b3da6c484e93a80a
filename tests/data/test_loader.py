import dataclasses
import os
import pickle
import signal
import time

import numpy as np
import pytest
import torch
import tyro
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from eyespot.data.loading import batch_loader
from eyespot.data.loading.batch import PictureBatch
from eyespot.data.loading.batch_loader import BrokenSourceError
from eyespot.data.loading.config import DataConfig
from eyespot.data.loading.pictures import PictureLoader
from eyespot.data.sources.decode import PictureError
from eyespot.data.sources.folders import FolderSource
from eyespot.data.sources.shards import write_shards
from eyespot.data.views.config import ViewConfig
from eyespot.data.views.draw import apply_view, draw_view


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two sources: 11 pictures in two classes, 5 without; small noise of several shapes."""
    root = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    names = [f"one/{'ab'[i % 2]}/{i}.png" for i in range(11)] + [f"two/{i}.jpg" for i in range(5)]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        values = generator.integers(0, 256, (*generator.integers(8, 20, 2), 3), dtype=np.uint8)
        Image.fromarray(values).save(root / name)
    return [str(root / "one"), str(root / "two")]


def config_of(folders, **changes):
    return DataConfig(**{"sources": list(folders), "size": 12, "seed": 4, **changes})


def take(loader, count, start=0):
    batches = loader.batches(start)
    taken = [next(batches) for _ in range(count)]
    batches.close()
    return taken


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        same = torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
        assert same, name


def test_batch_is_what_the_contract_says(folders):
    loader = PictureLoader(config_of(folders), 6)
    batch = loader.batch(2)
    assert set(batch) == PictureBatch.__required_keys__
    assert batch["step"] == 2 and batch["failures"] == []
    assert batch["images"].shape == (6, 3, 12, 12) and batch["images"].dtype == torch.uint8
    for name in ("labels", "source", "index", "view"):
        assert batch[name].shape == (6,) and batch[name].dtype == torch.int64
    for row in range(6):
        source, index, view = (int(batch[name][row]) for name in ("source", "index", "view"))
        picture = loader.sources[source].read(index)
        drawn = draw_view(loader.config.view, picture.size, 4, source, index, view)
        assert torch.equal(batch["images"][row], apply_view(picture, drawn, 12))
        label = loader.sources[source].label(index)
        assert batch["labels"][row] == (-1 if label is None else label)
    assert loader.picture_count == 16 and [source.name for source in loader.sources] == folders


@pytest.mark.parametrize("batches", ["mixed", "homogeneous"])
def test_workers_do_not_change_the_batches(folders, batches):
    alone = take(PictureLoader(config_of(folders, batches=batches), 6), 7)
    helped = take(PictureLoader(config_of(folders, batches=batches, workers=2), 6), 7)
    for one, other in zip(alone, helped, strict=True):
        assert_equal(one, other)


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_continues_the_same_batches(folders, workers):
    loader = PictureLoader(config_of(folders, workers=workers), 6)
    whole, resumed = take(loader, 8), take(loader, 3, start=5)
    for one, other in zip(whole[5:], resumed, strict=True):
        assert_equal(one, other)
        assert_equal(one, loader.batch(one["step"]))


def test_ranks_share_the_batch_of_one_process(folders):
    whole = PictureLoader(config_of(folders), 6).batch(3)
    parts = [PictureLoader(config_of(folders), 6, rank, 2).batch(3) for rank in range(2)]
    for name in ("images", "labels", "source", "index", "view"):
        assert torch.equal(torch.cat([part[name] for part in parts]), whole[name])


def test_global_generators_are_left_alone(folders):
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    take(PictureLoader(config_of(folders, workers=1), 6), 2)
    PictureLoader(config_of(folders), 6).batch(0)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_new_epoch_shows_new_views_unless_their_number_is_set(folders):
    def views_of_first_picture(config):
        loader = PictureLoader(config, 5)
        found = {}
        for step in range(4):
            batch = loader.batch(step)
            row = int((batch["index"] == 0).nonzero()[0])
            found[step] = batch["images"][row]
        return [found[step] for step in range(4)]

    free = views_of_first_picture(config_of(folders[1:]))
    assert not any(torch.equal(free[0], free[step]) for step in (1, 2, 3))
    two = views_of_first_picture(config_of(folders[1:], views=2))
    assert torch.equal(two[0], two[2]) and torch.equal(two[1], two[3]) and not torch.equal(two[0], two[1])


def test_shards_and_folders_give_the_same_batches(folders, tmp_path):
    write_shards(FolderSource(folders[0]), tmp_path, per_shard=4)
    one = PictureLoader(config_of(folders[:1]), 6).batch(1)
    other = PictureLoader(config_of([str(tmp_path / "*.tar")], workers=2), 6)
    assert_equal(one, other.batch(1))
    assert_equal(one, take(other, 1, start=1)[0])


def test_kept_pictures_are_read_once_and_change_nothing(folders, monkeypatch):
    loader = PictureLoader(config_of(folders, keep_decoded=True), 8)
    expected = PictureLoader(config_of(folders), 8)
    reads = []
    read = FolderSource.read
    monkeypatch.setattr(FolderSource, "read", lambda self, index: reads.append((self.name, index)) or read(self, index))
    taken = take(loader, 8)
    assert len(reads) == len(set(reads)) == 16
    for batch in taken:
        assert_equal(batch, expected.batch(batch["step"]))


def test_fingerprint_combines_the_sources(folders):
    both = PictureLoader(config_of(folders), 2).fingerprint()
    assert both == PictureLoader(config_of(folders, seed=9), 4).fingerprint()
    assert both != PictureLoader(config_of(folders[::-1]), 2).fingerprint()
    assert both != PictureLoader(config_of(folders[:1]), 2).fingerprint()


class Pictures:
    """A source in memory some of whose pictures are broken."""

    classes = None
    name = "pictures"

    def __init__(self, count, broken=(), sends=None):
        self.count, self.broken, self.sends = count, set(broken), sends

    def __len__(self):
        return self.count

    def read(self, index):
        if self.sends:
            os.kill(os.getpid(), self.sends)
        if index in self.broken:
            raise PictureError(self.picture_name(index), "torn: in two")
        return Image.new("RGB", (4, 4), (index, 0, 0))

    def picture_name(self, index):
        return f"picture {index}"

    def label(self, index):
        return index

    def fingerprint(self):
        return str(self.count)


def plain(**changes):
    return DataConfig(size=4, view=ViewConfig.plain(), **changes)


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_pictures_are_replaced_counted_and_named(workers):
    loader = PictureLoader(plain(workers=workers), 10, sources=[Pictures(10, broken=[2, 8, 9])])
    for step, batch in enumerate(take(loader, 3)):
        assert sorted(batch["index"].tolist()) == [0, 0, 0, 1, 3, 3, 4, 5, 6, 7]
        assert torch.equal(batch["images"][:, 0, 0, 0].long(), batch["index"])
        assert torch.equal(batch["labels"], batch["index"])
        # 8 leads over 9, which is also drawn itself.
        assert sorted(batch["failures"]) == [f"picture {index}: torn: in two" for index in (2, 8, 9, 9)]
        assert_equal(batch, loader.batch(step))
    assert loader.failures == {f"picture {index}": "torn: in two" for index in (2, 8, 9)}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_source_of_broken_pictures_is_an_error(workers):
    loader = PictureLoader(plain(workers=workers), 2, sources=[Pictures(5, broken=range(5))])
    with pytest.raises(BrokenSourceError, match=r"^5 pictures of 'pictures' in a row .* torn"):
        take(loader, 1)


def test_the_search_for_a_good_picture_is_bounded():
    source = Pictures(10**6, broken=range(10**6))
    with pytest.raises(BrokenSourceError, match=r"^256 pictures"):
        PictureLoader(plain(), 1, sources=[source]).batch(0)


def test_real_broken_files_are_reported_by_path(folders, tmp_path):
    for name in ("a.png", "b.jpg", "c.png"):
        Image.new("RGB", (9, 9)).save(tmp_path / name)
    (tmp_path / "b.jpg").write_bytes((tmp_path / "b.jpg").read_bytes()[:300])
    (tmp_path / "empty.png").touch()
    loader = PictureLoader(config_of([str(tmp_path)]), 4)
    loader.batch(0)
    assert loader.failures.keys() == {str(tmp_path / "b.jpg"), str(tmp_path / "empty.png")}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_dead_worker_is_a_clear_error():
    loader = PictureLoader(plain(workers=1), 2, sources=[Pictures(5, sends=signal.SIGKILL)])
    with pytest.raises(RuntimeError, match="a data worker died"):
        take(loader, 1)


@pytest.mark.parametrize("sends", [signal.SIGINT, signal.SIGTERM])
def test_workers_leave_signals_to_the_main_process(sends):
    """Ctrl-C reaches the whole group, and so does the SIGTERM of timeout, systemd and SLURM."""
    loader = PictureLoader(plain(workers=1), 5, sources=[Pictures(5, sends=sends)])
    assert sorted(take(loader, 1)[0]["index"].tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("free", "message"), [(400, "taking 0"), (700, "taking 1"), (1 << 29, None), (None, None)])
def test_as_many_workers_as_the_shared_memory_has_room_for(free, message, monkeypatch, recwarn):
    """A batch of 2 pictures of 4 px has 160 bytes; three of them per worker."""
    monkeypatch.setattr(batch_loader, "_shared_memory", lambda: free)
    wanted = take(PictureLoader(plain(workers=0), 2, sources=[Pictures(5)]), 3)
    found = take(PictureLoader(plain(workers=3), 2, sources=[Pictures(5)]), 3)
    assert all(torch.equal(one["images"], other["images"]) for one, other in zip(wanted, found, strict=True))
    said = [str(warning.message) for warning in recwarn if "/dev/shm" in str(warning.message)]
    assert [message in line and "--data.workers" in line for line in said] == ([True] if message else [])


@pytest.mark.slow
def test_a_worker_that_hangs_is_an_error(monkeypatch):
    class Hanging(Pictures):
        def read(self, index):
            time.sleep(4)
            return super().read(index)

    monkeypatch.setattr(batch_loader, "SILENT_SECONDS", 1)
    with pytest.raises(batch_loader.DeadWorkerError, match="no data worker has given a batch for 1 s; try workers=0"):
        take(PictureLoader(plain(workers=1), 2, sources=[Hanging(3)]), 1)


def test_errors_of_a_source_in_a_worker_are_not_hidden():
    class Wrong(Pictures):
        def read(self, index):
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        take(PictureLoader(plain(workers=1), 2, sources=[Wrong(3)]), 1)


def test_closing_ends_the_workers(folders):
    def children():
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return set(file.read().split())

    if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
        pytest.skip("needs /proc to list child processes")
    before = children()
    batches = PictureLoader(config_of(folders, workers=2), 4).batches()
    next(batches)
    assert len(children() - before) == 2
    batches.close()
    assert children() <= before


def test_loader_can_be_sent_to_another_process(folders):
    loader = PictureLoader(config_of(folders), 4)
    reader = pickle.loads(pickle.dumps(loader._reader))
    assert_equal(reader[loader._draws(1)], loader.batch(1))


def test_large_pictures_are_read_small(tmp_path):
    Image.new("RGB", (400, 200)).save(tmp_path / "a.jpg")
    assert PictureLoader(config_of([str(tmp_path)]), 1).sources[0].read(0).size == (50, 25)
    assert PictureLoader(config_of([str(tmp_path)], enough_side=100), 1).sources[0].read(0).size == (100, 50)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 6, "world_size": 4}, "multiple of 4"),
        ({"batch_size": 6, "rank": 2, "world_size": 2}, "between 0 and 1"),
        ({"batch_size": 0}, "at least 1"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(folders, arguments, message):
    with pytest.raises(ValueError, match=message):
        PictureLoader(config_of(folders), **arguments)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sources": []}, "give a folder"),
        ({"weights": [1.0, 2.0]}, "one per source"),
        ({"batches": "mixd"}, "'mixed' or 'homogeneous'"),
        ({"size": 0}, "greater than or equal to 1"),
        ({"views": 0}, "greater than or equal to 1"),
        ({"workers": -1}, "greater than or equal to 0"),
        ({"colour": True}, "colour"),
    ],
)
def test_wrong_settings_say_what_would_be_right(wrong, message):
    with pytest.raises(ValidationError, match=message):
        DataConfig(**wrong)


def test_config_goes_through_json_and_the_command_line():
    config = DataConfig(sources=["a", "b"], weights=[0.9, 0.1], batches="homogeneous", view=ViewConfig(blur=0.2))
    adapter = TypeAdapter(DataConfig)
    assert adapter.validate_json(adapter.dump_json(config)) == config
    flags = ["--sources", "a", "b", "--weights", "0.9", "0.1", "--batches", "homogeneous", "--view.blur", "0.2"]
    assert tyro.cli(DataConfig, args=flags) == config
    assert dataclasses.replace(config, seed=1).seed == 1


def test_help_comes_from_the_docstrings(capsys):
    with pytest.raises(SystemExit):
        tyro.cli(DataConfig, args=["--help"])
    text = capsys.readouterr().out
    assert "Probability of a horizontal flip" in text and "Side of the square views" in text


def test_real_pictures(shared):
    data = shared / "data"
    sources = [str(data / "caltech101" / "train"), str(data / "camvid" / "train" / "images")]
    sources.append(str(data / "webdataset" / "*.tar"))
    loader = PictureLoader(DataConfig(sources=sources, size=64, weights=[0.5, 0.3, 0.2], workers=2), 16)
    taken = take(loader, 4)
    assert {int(number) for batch in taken for number in batch["source"]} == {0, 1, 2}
    assert loader.failures == {}
    assert all(batch["images"].float().std() > 20 for batch in taken)
