"""What is in pictures and labels is told from what was in them, though names, sizes and even times stay."""

import io
import os
import shutil
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eyespot import contents
from eyespot.contents import Place, file_contents
from eyespot.data import open_source
from eyespot.data.labelled.base import FileLabels, FilePictures
from eyespot.data.sources.fingerprint import contents_of, full_fingerprint
from eyespot.data.sources.folders import FolderSource
from eyespot.data.sources.shards import ShardSource

LONG_AGO = 10**18
"""Nanoseconds: a time at which nobody writes any more."""


def paint(file: Path, red: int, when: int | None = None) -> None:
    """A picture whose size in bytes does not depend on its colour."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (red, 0, 0)).save(file)
    if when is not None:
        os.utime(file, ns=(when, when))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in range(4):
        paint(tmp_path / f"pictures/{'ab'[number % 2]}/{number}.bmp", number, LONG_AGO)
    return tmp_path / "pictures"


def test_a_changed_picture_is_another_though_name_size_and_time_are_the_same(pictures: Path) -> None:
    before = FolderSource(pictures)
    names, first, whole = before.fingerprint(), before.contents(), full_fingerprint(before)
    paint(pictures / "b/1.bmp", 99, LONG_AGO)
    for source in (before, FolderSource(pictures)):  # also within one process, and for what is open already
        changed = source.contents() != first
        assert [source.picture_name(index).rpartition("/")[2] for index in np.flatnonzero(changed)] == ["1.bmp"]
        assert source.fingerprint() == names and full_fingerprint(source) != whole
    paint(pictures / "b/1.bmp", 1)
    assert full_fingerprint(FolderSource(pictures)) == whole


def test_a_copy_or_a_touched_file_is_the_same(pictures: Path, tmp_path: Path) -> None:
    whole = full_fingerprint(FolderSource(pictures))
    shutil.copytree(pictures, tmp_path / "copy", copy_function=shutil.copyfile)
    (pictures / "a/0.bmp").touch()
    assert full_fingerprint(FolderSource(tmp_path / "copy")) == full_fingerprint(FolderSource(pictures)) == whole


def test_large_sets_go_by_sizes_and_times(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "READ_AT_MOST", 100)
    monkeypatch.setattr(contents, "_blocks", None)  # nothing is read
    files = sorted(pictures.rglob("*.bmp"))
    before = file_contents(files)
    os.utime(files[2], ns=(LONG_AGO, LONG_AGO + 1))
    assert (file_contents(files) != before).tolist() == [False, False, True, False]


def test_what_was_read_is_remembered_until_the_file_changes(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "SETTLED", -(10**18))  # the system's own time of change is now
    file = pictures / "a/0.bmp"
    read: list[Path] = []
    blocks = contents._blocks
    monkeypatch.setattr(contents, "_blocks", lambda place: (read.append(file), blocks(place))[1])
    first = [file_contents([file])[0] for _ in range(3)]
    assert len(set(first)) == len(read) == 1
    time.sleep(0.02)  # the clock of the disk
    paint(file, 200, LONG_AGO)
    assert file_contents([file])[0] != first[0] and len(read) == 2


def test_what_has_only_just_changed_is_not_trusted_to_its_time(tmp_path: Path) -> None:
    file, numbers = tmp_path / "a.bin", set()
    for value in range(200):  # many of them within one tick of the disk's clock
        file.write_bytes(bytes([value]))
        numbers.add(int(file_contents([file])[0]))
    assert len(numbers) == 200


def test_places_in_a_file_are_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"abcabd")
    one, other, same, whole = file_contents([Place(file, 0, 2), Place(file, 1, 2), Place(file, 3, 2), Place(file)])
    assert one == same and len({int(one), int(other), int(whole)}) == 3


def shard(path: Path, pictures: list[int], labels: list[int]) -> ShardSource:
    with tarfile.open(path, "w") as tar:
        for number, (red, label) in enumerate(zip(pictures, labels, strict=True)):
            content = io.BytesIO()
            Image.new("RGB", (8, 8), (red, 0, 0)).save(content, "BMP")
            for suffix, part in ((".bmp", content.getvalue()), (".cls", str(label).encode())):
                member = tarfile.TarInfo(f"{number}{suffix}")
                member.size = len(part)
                tar.addfile(member, io.BytesIO(part))
    return ShardSource([path])


def test_pictures_and_labels_in_shards(tmp_path: Path) -> None:
    before = shard(tmp_path / "0.tar", [1, 2, 3], [0, 1, 0])
    names, first = before.fingerprint(), before.contents()
    for number, other in enumerate((shard(tmp_path / "1.tar", [1, 9, 3], [0, 1, 0]),
                                    shard(tmp_path / "2.tar", [1, 2, 3], [0, 0, 0]))):  # fmt: skip
        assert other.fingerprint() == names, number
        assert (other.contents() != first).tolist() == [False, True, False]


def test_a_hub_set_of_files(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "kept")
    before = open_source(f"datasets/{pictures}")
    first = contents_of(before)
    assert len(first) == len(before) == 4
    paint(pictures / "b/1.bmp", 99, LONG_AGO)  # its name, size and time are all that the library knows of it
    changed = contents_of(before) != first
    assert [before.read(int(index)).getpixel((0, 0)) for index in np.flatnonzero(changed)] == [(99, 0, 0)]


def test_a_hub_set_that_holds_its_pictures(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")

    def saved(name: str, labels: list[int]) -> np.ndarray:
        rows = {"image": [Image.new("RGB", (8, 8), (red, 0, 0)) for red in range(3)], "label": labels}
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
        datasets.Dataset.from_dict(rows, features).save_to_disk(tmp_path / name)
        return contents_of(open_source(f"datasets/{tmp_path / name}"))

    one = saved("one", [0, 1, 0])
    shutil.copytree(tmp_path / "one", tmp_path / "moved")
    assert np.array_equal(contents_of(open_source(f"datasets/{tmp_path / 'moved'}")), one)
    assert not (saved("relabelled", [0, 1, 1]) == one).any()


def test_maps_that_are_kept_are_read_again_when_their_file_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "0.npy"
    labels = FileLabels([file], lambda path: torch.from_numpy(np.load(path)))
    for metres in (1.0, 4.0, 2.0):
        np.save(file, np.full((4, 4), metres, np.float32))
        os.utime(file, ns=(LONG_AGO, LONG_AGO))
        assert labels[0].unique().tolist() == labels[0].unique().tolist() == [metres]


def test_pictures_for_evaluation(pictures: Path) -> None:
    opened = FilePictures(sorted(pictures.rglob("*.bmp")), crop=True)
    before = full_fingerprint(opened)
    paint(pictures / "a/2.bmp", 77, LONG_AGO)
    assert full_fingerprint(opened) != before
