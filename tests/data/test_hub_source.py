"""Hugging Face datasets as a source: saved folders, Parquet files, labels, broken rows."""

import io
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from eyespot.data import DataConfig, PictureError, PictureLoader, PictureSource, open_source
from eyespot.data.sources.hub import HubSource, may_fetch
from eyespot.plan.storage import count_pictures

datasets = pytest.importorskip("datasets")

NAMES = ["sea", "rose", "moss"]
LABELS = [0, 1, 2, 1, 0]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def png(shade, size=(20, 16)):
    file = io.BytesIO()
    Image.new("RGB", size, (shade, 10, 10)).save(file, "PNG")
    return file.getvalue()


def table(labels, **more):
    """A data set whose pictures show their row number."""
    rows = {"image": [{"bytes": png(10 * row), "path": None} for row in range(len(labels))], "label": labels}
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)}
    for name, (values, feature) in more.items():
        rows[name], features[name] = values, feature
    return datasets.Dataset.from_dict(rows, datasets.Features(features))


@pytest.fixture
def saved(tmp_path):
    splits = {"train": table(LABELS), "test": table([2, 2])}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


def test_a_saved_set_is_a_source(saved):
    source = open_source(f"datasets/{saved}")
    assert isinstance(source, PictureSource) and isinstance(source, HubSource)
    assert (len(source), source.classes) == (5, NAMES)
    assert [source.label(index) for index in range(5)] == LABELS
    picture = source.read(3)
    assert (picture.mode, picture.size, picture.getpixel((0, 0))) == ("RGB", (20, 16), (30, 10, 10))
    assert source.picture_name(3) == f"datasets/{saved}#3"
    test = open_source(f"datasets/{saved}?split=test")
    assert len(test) == 2 and test.fingerprint() != source.fingerprint()


def test_nothing_is_decoded_until_it_is_read(saved, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a picture was opened")

    monkeypatch.setattr(Image, "open", refuse)
    source = open_source(f"datasets/{saved}")
    assert source.fingerprint() and source.label(4) == 0


def test_the_fingerprint_follows_the_data_and_not_the_place(saved, tmp_path):
    first = open_source(f"datasets/{saved}").fingerprint()
    shutil.copytree(saved, tmp_path / "moved")
    assert open_source(f"datasets/{tmp_path}/moved").fingerprint() == first
    datasets.DatasetDict({"train": table([0, 1, 2, 1, 1])}).save_to_disk(str(tmp_path / "other"))
    assert open_source(f"datasets/{tmp_path}/other").fingerprint() != first


def test_large_pictures_are_shrunk_on_reading(saved):
    assert open_source(f"datasets/{saved}", enough_side=10).read(0).size == (10, 8)


def test_one_split_saved_alone_is_train(tmp_path):
    table(LABELS).save_to_disk(str(tmp_path / "one"))
    assert len(open_source(f"datasets/{tmp_path}/one")) == 5


def test_parquet_files_and_class_folders(tmp_path):
    (tmp_path / "parquet").mkdir()
    table(LABELS).to_parquet(tmp_path / "parquet" / "train.parquet")
    source = open_source(f"datasets/{tmp_path}/parquet")
    assert (len(source), source.classes, source.label(2)) == (5, NAMES, 2)
    assert source.read(1).getpixel((0, 0)) == (10, 10, 10)
    for name in ("rose", "sea"):
        (tmp_path / "folders" / "train" / name).mkdir(parents=True)
        (tmp_path / "folders" / "train" / name / "a.png").write_bytes(png(70))
    folders = open_source(f"datasets/{tmp_path}/folders")
    assert folders.classes == ["rose", "sea"] and sorted(map(folders.label, range(2))) == [0, 1]
    assert folders.read(0).getpixel((0, 0)) == (70, 10, 10)


def test_columns_are_found_or_named(tmp_path):
    words = (["b", "a", "b", None, "a"], datasets.Value("string"))
    rows = table(LABELS, word=words).rename_column("image", "picture").rename_column("label", "kind")
    rows.save_to_disk(str(tmp_path / "set"))
    source = open_source(f"datasets/{tmp_path}/set")
    assert source.classes == NAMES and source.label(1) == 1
    words = open_source(f"datasets/{tmp_path}/set?label=word")
    assert words.classes == ["a", "b"]
    assert [words.label(index) for index in range(5)] == [1, 0, 1, None, 0]
    assert words.fingerprint() != source.fingerprint()


def test_rows_without_label_or_picture(tmp_path):
    rows = table([0, -1, 2])
    rows = rows.remove_columns("image").add_column(
        "image",
        [{"bytes": png(5), "path": None}, {"bytes": b"no picture", "path": None}, None],
        feature=datasets.Image(),
    )
    rows.save_to_disk(str(tmp_path / "set"))
    source = open_source(f"datasets/{tmp_path}/set")
    assert [source.label(index) for index in range(3)] == [0, None, 2]
    with pytest.raises(PictureError, match="#1: not a picture"):
        source.read(1)
    with pytest.raises(PictureError, match=r"#2: .*holds no picture"):
        source.read(2)


def test_without_labels(tmp_path):
    table(LABELS).remove_columns("label").save_to_disk(str(tmp_path / "set"))
    source = open_source(f"datasets/{tmp_path}/set")
    assert source.classes is None and source.label(0) is None


@pytest.mark.parametrize("workers", [0, 2])
def test_batches(saved, workers):
    loader = PictureLoader(DataConfig(sources=[f"datasets/{saved}"], size=16, workers=workers), 5)
    batches = loader.batches()
    batch = next(batches)
    batches.close()
    assert batch["images"].shape == (5, 3, 16, 16)
    assert torch.equal(batch["labels"], torch.tensor(LABELS)[batch["index"]])


def test_a_plan_measures_folders_and_fetches_nothing(saved):
    spec = f"datasets/{saved}"
    found = count_pictures(DataConfig(sources=[spec]), None, None)
    assert found.count == 5
    assert found.mean_bytes == pytest.approx(np.mean([len(png(10 * row)) for row in range(5)]))
    assert not may_fetch(spec) and not may_fetch(f"{spec}?split=test") and may_fetch("datasets/some/name")
    unknown = count_pictures(DataConfig(sources=["datasets/some/name"]), None, None)
    assert unknown.count is None and "datasets/some/name" in unknown.unknown[0]


def test_errors_say_what_would_be_right(saved, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no split 'dev'; there are train, test"):
        open_source(f"datasets/{saved}?split=dev")
    with pytest.raises(ValueError, match="no column 'img'; there are image, label"):
        open_source(f"datasets/{saved}?image=img")
    with pytest.raises(ValueError, match="no column 'class'"):
        open_source(f"datasets/{saved}?label=class")
    with pytest.raises(ValueError, match="did you mean 'split'"):
        open_source(f"datasets/{saved}?spilt=train")
    with pytest.raises(ValueError, match="datasets/NAME"):
        open_source("datasets/")
    with pytest.raises(ValueError, match=f"datasets/{saved}"):
        open_source(str(saved))
    with pytest.raises(FileNotFoundError, match=r"Without a network bring a folder written by `save_to_disk`"):
        open_source(f"datasets/{tmp_path}/nowhere")
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(str(tmp_path / "texts"))
    with pytest.raises(ValueError, match=r"no column of pictures; name one of text"):
        open_source(f"datasets/{tmp_path}/texts")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'eyespot\[datasets\]'"):
        open_source(f"datasets/{saved}")


def test_a_folder_of_this_name_is_a_folder(tmp_path, monkeypatch):
    (tmp_path / "datasets" / "photos").mkdir(parents=True)
    (tmp_path / "datasets" / "photos" / "a.png").write_bytes(png(1))
    monkeypatch.chdir(tmp_path)
    assert not may_fetch("datasets/photos")
    assert open_source("datasets/photos").picture_name(0).endswith("a.png")
