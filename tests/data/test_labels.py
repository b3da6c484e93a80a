"""Classes of sources: the same whatever brings them, and refused where they disagree."""

import io
import tarfile

import pytest
from PIL import Image

from eyespot.data import open_source, write_shards
from eyespot.data.labelled.labels import Classes, classes_of
from eyespot.data.toybox.scenes import SHAPES

PICTURES = {"cat": 3, "dog": 2, "owl": 1}


def fill(folder, pictures=PICTURES):
    for name, count in pictures.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / name / f"{number}.png")
    return str(folder)


@pytest.fixture
def folder(tmp_path):
    return open_source(fill(tmp_path / "folder"))


def shard(path, labels):
    """A shard with these labels; None is left out, text is written as it is."""
    picture = io.BytesIO()
    Image.new("RGB", (4, 4)).save(picture, "PNG")
    with tarfile.open(path, "w") as tar:
        for number, label in enumerate(labels):
            for suffix, content in ((".png", picture.getvalue()), (".cls", str(label).encode())):
                if suffix == ".png" or label is not None:
                    header = tarfile.TarInfo(f"{number:03d}{suffix}")
                    header.size = len(content)
                    tar.addfile(header, io.BytesIO(content))
    return open_source(str(path))


def hub(path, source):
    """The same pictures and classes as a Hugging Face data set."""
    datasets = pytest.importorskip("datasets")
    rows = {"image": [source.read(i) for i in range(len(source))], "label": [source.label(i) for i in range(6)]}
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=source.classes))
    datasets.Dataset.from_dict(rows, features).save_to_disk(str(path))
    return open_source(f"datasets/{path}")


def test_every_kind_of_source_says_the_same(folder, tmp_path):
    shards = open_source(str(write_shards(folder, tmp_path / "shards")[0]))
    table = hub(tmp_path / "table", folder)
    names = Classes(3, ["cat", "dog", "owl"])
    assert classes_of([folder]) == classes_of([table]) == names
    assert classes_of([shards]) == Classes(3, None)
    assert classes_of([folder, table, shards]) == classes_of([shards, table]) == names
    labels = [[source.label(index) for index in range(6)] for source in (folder, shards, table)]
    assert labels == [[0, 0, 0, 1, 1, 2]] * 3


def test_the_toybox_has_shapes():
    assert classes_of([open_source("toybox:4@16")]) == Classes(len(SHAPES), list(SHAPES))


def test_a_known_count_spares_the_reading(tmp_path):
    class Watched:
        name, classes = "watched", None
        asked: list[int] = []  # noqa: RUF012

        def __len__(self):
            return 100

        def label(self, index):
            self.asked.append(index)
            return index % 7

    source = Watched()
    assert classes_of([source], count=7) == Classes(7, None)
    assert source.asked == [0]
    assert classes_of([source]) == Classes(7, None)


def test_more_classes_than_are_shown(folder):
    assert classes_of([folder], count=10) == Classes(10, None)
    with pytest.raises(ValueError, match="3 classes, more than the 2"):
        classes_of([folder], count=2)


def test_single_pictures_without_a_readable_label(tmp_path):
    source = shard(tmp_path / "x.tar", [None, "cat", -1, 4, 2])
    assert classes_of([source]) == classes_of([source], 5) == Classes(5, None)


def test_disagreeing_sources_are_refused(folder, tmp_path):
    other = open_source(fill(tmp_path / "other", {"cat": 1, "dog": 1, "fox": 1}))
    with pytest.raises(ValueError, match=r"other classes than .*not in both: fox, owl"):
        classes_of([folder, other])
    with pytest.raises(ValueError, match=r"label 3, but .* only 3 classes"):
        classes_of([folder, shard(tmp_path / "x.tar", [0, 3])])


@pytest.mark.parametrize("count", [None, 3])
def test_sources_without_labels_are_refused(folder, tmp_path, count):
    flat = tmp_path / "flat"
    flat.mkdir()
    Image.new("RGB", (4, 4)).save(flat / "a.png")
    for source in (open_source(str(flat)), shard(tmp_path / "x.tar", [None, None])):
        with pytest.raises(ValueError, match=r"has no labels\. They come from"):
            classes_of([folder, source], count)
