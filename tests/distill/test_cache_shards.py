import os
import pickle
import shutil
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from eyespot.distill.cache.reader import DamagedCacheWarning, ShardReader
from eyespot.distill.cache.rows import RowNumbers
from eyespot.distill.cache.shards import read_head, write_shard
from eyespot.randomness import torch_generator

R, ROWS = 24, 50


def record(row):
    return torch.randint(0, 256, (R,), dtype=torch.uint8, generator=torch_generator("record", row))


def records(rows):
    return torch.stack([record(row) for row in rows])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "cache.json").write_text(f'{{"record_bytes": {R}}}')
    return tmp_path


def write(folder, *rows):
    return write_shard(folder, torch.tensor(rows), records(rows))


def good(reader, rows):
    """Which rows are there, after checking that their content is right."""
    found, there = reader.read(np.array(rows))
    for row, content, present in zip(rows, found, there, strict=True):
        assert not present or torch.equal(content, record(row)), row
    return [row for row, present in zip(rows, there, strict=True) if present]


def test_rows_come_back_from_several_shards_in_any_order(folder):
    write(folder, 3, 1, 40)
    write(folder, 2)
    reader = ShardReader(folder, ROWS)
    assert good(reader, [40, 2, 3, 5, 1, 2]) == [40, 2, 3, 1, 2]
    assert reader.shards == 2


def test_a_shard_is_plain_safetensors(folder):
    path = write(folder, 7, 8)
    content = load_file(path)
    assert content["rows"].tolist() == [7, 8]
    assert torch.equal(content["records"], records([7, 8]))


def test_new_shards_are_seen_when_a_row_is_missing(folder):
    write(folder, 1)
    reader = ShardReader(folder, ROWS)
    write(folder, 2)
    assert good(reader, [1]) == [1]
    assert good(reader, [1, 2]) == [1, 2]


def test_a_shard_is_seen_that_came_in_the_same_tick_of_the_clock(folder):
    write(folder, 1)
    now = time.time_ns()
    os.utime(folder, ns=(now, now))
    reader = ShardReader(folder, ROWS)
    write(folder, 2)
    os.utime(folder, ns=(now, now))
    assert good(reader, [1, 2]) == [1, 2]


def test_a_folder_at_rest_is_not_listed_again(folder, monkeypatch):
    write(folder, 1)
    os.utime(folder, ns=(10**18, 10**18))
    reader = ShardReader(folder, ROWS)
    monkeypatch.setattr(type(folder), "glob", None)
    assert good(reader, [1, 2]) == [1]


def test_a_folder_that_is_not_there_yet(tmp_path):
    reader = ShardReader(tmp_path / "later", ROWS)
    found, there = reader.read(np.array([0, 1]))
    assert found.shape == (2, 0) and not there.any()
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "cache.json").write_text(f'{{"record_bytes": {R}}}')
    write(tmp_path / "later", 1)
    assert good(reader, [0, 1]) == [1]


def test_the_same_rows_twice_are_one_file(folder):
    assert write(folder, 4, 5) == write(folder, 4, 5)
    assert write(folder, 4, 5) != write(folder, 4, 6)
    assert len(list(folder.glob("rows-*"))) == 2
    assert good(ShardReader(folder, ROWS), [4, 5, 6]) == [4, 5, 6]


def test_a_reader_travels_to_other_processes(folder):
    write(folder, 4)
    reader = pickle.loads(pickle.dumps(ShardReader(folder, ROWS)))
    write(folder, 5)
    assert good(reader, [4, 5]) == [4, 5]


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 0b100
    path.write_bytes(content)


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def length(path):
    return path.stat().st_size


OF_RECORDS = {
    "a bit in the middle of a record": lambda path: flip(path, read_head(path).start + R + R // 2),
    "a bit in the last byte": lambda path: flip(path, length(path) - 1),
    "one byte short": lambda path: cut(path, length(path) - 1),
    "a record short": lambda path: cut(path, length(path) - R),
    "half of it": lambda path: cut(path, length(path) // 2),
    "a few bytes": lambda path: cut(path, 5),
    "empty": lambda path: cut(path, 0),
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 8),
    "text": lambda path: path.write_text("nothing of the kind"),
}
OF_THE_HEAD = {
    "a bit in a checksum": lambda path: flip(path, read_head(path).start - 9 * 8),
    "a bit in the header": lambda path: flip(path, 12),
    "a bit in the header's length": lambda path: flip(path, 6),
    "one byte more": lambda path: path.write_bytes(path.read_bytes() + b"x"),
}


@pytest.mark.parametrize(
    ("damage", "opened"),
    [(damage, "before") for damage in OF_RECORDS] + [(damage, "after") for damage in {**OF_RECORDS, **OF_THE_HEAD}],
)
def test_a_damaged_shard_is_named_and_removed_and_never_used(folder, damage, opened):
    write(folder, 1, 2)
    bad = write(folder, 10, 11, 12)
    reader = ShardReader(folder, ROWS) if opened == "before" else None
    {**OF_RECORDS, **OF_THE_HEAD}[damage](bad)
    with pytest.warns(DamagedCacheWarning, match=bad.name):
        reader = reader or ShardReader(folder, ROWS)
        present = good(reader, [1, 10, 11, 12, 2])  # checks that nothing wrong is given out
    # earlier rows of it may have been read well before the damage was met
    assert {1, 2} <= set(present) < {1, 2, 10, 11, 12}
    assert good(reader, [1, 10, 11, 12, 2]) == [1, 2]
    assert not bad.exists()
    assert len(reader.removed) == 1 and bad.name in reader.removed[0]
    write(folder, 10, 11, 12)
    assert good(reader, [1, 10, 11, 12, 2]) == [1, 10, 11, 12, 2]


def test_a_record_under_another_number_is_damage(folder):
    bad = write(folder, 10, 11, 12)
    flip(bad, read_head(bad).start - 3 * 8)  # the first row's number
    reader = ShardReader(folder, ROWS)
    assert good(reader, [10, 11]) == [11]
    with pytest.warns(DamagedCacheWarning, match=f"{bad.name}.* row {10 ^ 4} is not what was written"):
        assert good(reader, [10 ^ 4]) == []


def test_a_change_of_the_head_after_it_was_read_does_no_harm(folder):
    path = write(folder, 10, 11, 12)
    reader = ShardReader(folder, ROWS)
    flip(path, 12)
    assert good(reader, [10, 11, 12]) == [10, 11, 12]


def test_one_of_two_readers_finds_the_damage_and_both_go_on(folder):
    bad = write(folder, 10, 11)
    one, other = ShardReader(folder, ROWS), ShardReader(folder, ROWS)
    flip(bad, length(bad) - 1)
    with pytest.warns(DamagedCacheWarning):
        assert good(one, [10, 11]) == [10]
    assert good(other, [10, 11]) == []
    write(folder, 10, 11)
    assert good(one, [10, 11]) == good(other, [10, 11]) == [10, 11]


def test_rows_beyond_the_last_one_are_damage(folder):
    bad = write(folder, ROWS - 1, ROWS)
    with pytest.warns(DamagedCacheWarning, match="rows that cannot be"):
        reader = ShardReader(folder, ROWS)
    assert not reader.has(np.arange(ROWS)).any() and not bad.exists()


def test_a_shard_of_another_layout_is_damage(folder):
    write_shard(folder, torch.tensor([1]), torch.zeros(1, R + 8, dtype=torch.uint8))
    with pytest.warns(DamagedCacheWarning, match="32 bytes per row in place of 24"):
        ShardReader(folder, ROWS)


def test_half_written_files_do_not_count(folder):
    path = write(folder, 1, 2)
    shutil.move(path, folder / f".{path.name}.123.tmp")
    assert good(ShardReader(folder, ROWS), [1, 2]) == []


def test_check_all_reads_every_record(folder):
    write(folder, 1, 2)
    bad = [write(folder, 10, 11), write(folder, 20)]
    reader = ShardReader(folder, ROWS)
    for path in bad:
        flip(path, length(path) - 1)
    with pytest.warns(DamagedCacheWarning):
        reader.check_all()
    assert len(reader.removed) == 2 and reader.shards == 1
    assert good(reader, [1, 2, 10, 11, 20]) == [1, 2]


def test_check_all_reads_rows_that_are_there_twice_in_both_places(folder):
    paths = [write(folder, 1, 2), write(folder, 2, 3), write(folder, 3)]
    for damaged in paths:
        content = damaged.read_bytes()
        reader = ShardReader(folder, ROWS)
        flip(damaged, length(damaged) - 1)
        with pytest.warns(DamagedCacheWarning, match=damaged.name):
            reader.check_all()
        damaged.write_bytes(content)


def test_row_numbers_and_back():
    numbers = RowNumbers([5, 1, 3], views=2)
    assert numbers.count == 18
    rows = np.arange(18)
    draws = numbers.draws(rows)
    assert np.array_equal(numbers(draws.source, draws.index, draws.view), rows)
    assert len({*zip(draws.source.tolist(), draws.index.tolist(), draws.view.tolist(), strict=True)}) == 18
    assert draws.index.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 0, 0, 0, 0, 1, 1, 2, 2]
    assert draws.source.tolist() == [0] * 10 + [1] * 2 + [2] * 6


def test_what_a_killed_process_left_is_swept_away_after_an_hour(tmp_path):
    old, young = tmp_path / ".rows-old.safetensors.1.tmp", tmp_path / ".rows-young.safetensors.2.tmp"
    for file in (old, young):
        file.write_bytes(b"half")
    os.utime(old, (0, 0))
    write_shard(tmp_path, torch.arange(2), torch.zeros(2, 8, dtype=torch.uint8))
    assert not old.exists() and young.exists()
