import pickle
import sys

import numpy as np
import pytest
import torch
from scipy.io import savemat

from eyespot.data.sets import LayoutError, open_cifar10, open_cifar100, open_hub, open_imagenet, open_imagenet_names
from replicas import nothing_decoded, photo, text, write_hub

TENCH, CRANE, MACHINE = "n01440764", "n02012849", "n03126707"
WORDS = {TENCH: "tench, Tinca tinca", CRANE: "crane", MACHINE: "crane"}
FIRST_WORDS = ["tench", "crane", "crane"]
VAL = [MACHINE, TENCH, CRANE, TENCH]  # of ILSVRC2012_val_00000001 and so on


def write_train(base):
    for wnid, grey in ((CRANE, 100), (TENCH, 40), (MACHINE, 200)):
        for number in (18, 7):
            photo(base / "train" / wnid / f"{wnid}_{number}.JPEG", grey + number)


def write_flat_val(base):
    for number in range(1, 5):
        photo(base / "val" / f"ILSVRC2012_val_{number:08d}.JPEG", 10 * number)


def write_devkit(folder):
    """The devkit numbers classes in its own order, and lists higher synsets behind the 1,000."""
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = [(1, MACHINE, "crane", 0), (2, TENCH, "tench, Tinca tinca", 0), (3, CRANE, "crane", 0)]
    rows.append((1001, "n00000001", "thing", 3))
    folder.mkdir(parents=True)
    savemat(folder / "meta.mat", {"synsets": np.array(rows, dtype=fields)})
    text(folder / "ILSVRC2012_validation_ground_truth.txt", "1", "2", "3", "2")


@pytest.fixture
def sorted_imagenet(tmp_path):
    write_train(tmp_path)
    for number, wnid in enumerate(VAL, 1):
        photo(tmp_path / "val" / wnid / f"ILSVRC2012_val_{number:08d}.JPEG", 10 * number)
    return tmp_path


def test_imagenet_in_class_folders_numbers_classes_by_wordnet(sorted_imagenet):
    with nothing_decoded():
        data = open_imagenet(sorted_imagenet)
    assert data.classes == [TENCH, CRANE, MACHINE]  # no file with names
    assert data.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.val.labels.tolist() == [0, 0, 1, 2]
    assert [path.stem[-1] for path in data.val.pictures.paths] == ["2", "4", "3", "1"]
    assert data.train.pictures.crop and data.val.pictures.crop
    assert data.train.pictures.read(2, 3, (4, 4)).mean() * 255 == pytest.approx(118, abs=2)
    assert open_imagenet(sorted_imagenet, limit=3).train.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("place", ["ILSVRC2012_devkit_t12/data", "."])
def test_imagenet_as_its_archives_unpack(tmp_path, place):
    write_devkit(tmp_path / "devkit")
    (tmp_path / "devkit").rename(tmp_path / "root") if place == "." else None
    base = tmp_path / "root"
    if place != ".":
        base.mkdir()
        (base / place).parent.mkdir()
        (tmp_path / "devkit").rename(base / place)
    write_train(base)
    write_flat_val(base)
    with nothing_decoded():
        data = open_imagenet(base)
    assert data.val.labels.tolist() == [2, 0, 1, 0]
    assert data.classes == FIRST_WORDS


@pytest.fixture
def kaggle(tmp_path):
    base = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    write_train(base)
    write_flat_val(base)
    rows = [
        f"ILSVRC2012_val_{number:08d},{VAL[number - 1]} 1 2 3 4 {VAL[number - 1]} 5 6 7 8 " for number in (3, 1, 2, 4)
    ]
    text(tmp_path / "LOC_val_solution.csv", "ImageId,PredictionString", *rows)
    text(tmp_path / "LOC_synset_mapping.txt", *(f"{wnid} {words}" for wnid, words in WORDS.items()))
    return tmp_path


def test_imagenet_as_kaggle_unpacks(kaggle):
    with nothing_decoded():
        data = open_imagenet(kaggle)
    assert data.val.labels.tolist() == [2, 0, 1, 0]
    assert data.classes == FIRST_WORDS
    assert open_imagenet(kaggle, limit=2).val.labels.tolist() == [2, 1]


def test_zero_shot_needs_names_but_no_training_pictures(kaggle, sorted_imagenet):
    (kaggle / "ILSVRC" / "Data" / "CLS-LOC" / "train").rename(kaggle / "elsewhere")
    data = open_imagenet_names(kaggle)
    assert (data.classes, data.val.labels.tolist(), len(data.train.labels)) == (FIRST_WORDS, [2, 0, 1, 0], 0)
    text(kaggle / "my_names.txt", "fish", "bird", "machine")
    assert open_imagenet_names(kaggle, names=str(kaggle / "my_names.txt")).classes == ["fish", "bird", "machine"]
    assert open_imagenet_names(kaggle, names="wnid").classes == [TENCH, CRANE, MACHINE]
    text(kaggle / "my_names.txt", "fish", "bird")
    with pytest.raises(ValueError, match="gives 2 class names, there are 3 classes"):
        open_imagenet_names(kaggle, names=str(kaggle / "my_names.txt"))


def test_zero_shot_without_names_says_what_to_bring(sorted_imagenet):
    with pytest.raises(LayoutError, match=r"no class names in .*LOC_synset_mapping\.txt.*names=wnid"):
        open_imagenet_names(sorted_imagenet)
    text(sorted_imagenet / "words.txt", *(f"{wnid}\t{words}" for wnid, words in WORDS.items()))
    assert open_imagenet_names(sorted_imagenet).classes == FIRST_WORDS
    text(sorted_imagenet / "words.txt", f"{TENCH}\ttench")
    with pytest.raises(ValueError, match=f"no class names for {CRANE}, {MACHINE}"):
        open_imagenet_names(sorted_imagenet)


def test_open_clips_names(sorted_imagenet, monkeypatch):
    open_clip = pytest.importorskip("open_clip")
    assert len(open_clip.IMAGENET_CLASSNAMES) == 1000 and open_clip.IMAGENET_CLASSNAMES[0] == "tench"
    with pytest.raises(ValueError, match="open_clip gives 1000 class names, there are 3"):
        open_imagenet_names(sorted_imagenet, names="open_clip")
    monkeypatch.setattr(open_clip, "IMAGENET_CLASSNAMES", ["a", "b", "c"])
    assert open_imagenet(sorted_imagenet, names="open_clip").classes == ["a", "b", "c"]


def test_imagenet_errors(kaggle, tmp_path):
    with pytest.raises(
        LayoutError, match=r"no folder .*nowhere/train; expected .*CLS-LOC\. Get ImageNet-1k from image-net"
    ):
        open_imagenet(tmp_path / "nowhere")
    base = kaggle / "ILSVRC" / "Data" / "CLS-LOC"
    photo(base / "val" / "ILSVRC2012_val_00000005.JPEG")
    with pytest.raises(ValueError, match=r"LOC_val_solution\.csv has no label for ILSVRC2012_val_00000005"):
        open_imagenet(kaggle)
    (base / "val" / "ILSVRC2012_val_00000005.JPEG").unlink()
    (base / "train" / TENCH).rename(tmp_path / "tench")
    with pytest.raises(ValueError, match=f"no training pictures for {TENCH}"):
        open_imagenet(kaggle)
    (kaggle / "LOC_val_solution.csv").unlink()
    with pytest.raises(LayoutError, match=r"LOC_val_solution\.csv or .*validation_ground_truth\.txt"):
        open_imagenet(kaggle)


def entry(labels, key):
    """Pictures whose red is 10 times the label, with a bright left column."""
    rows = np.zeros((len(labels), 3, 32, 32), dtype=np.uint8)
    rows[:, 0] = 10 * np.array(labels)[:, None, None]
    rows[:, :, :, 0] = 255
    return {"data": rows.reshape(len(labels), 3072), key: list(labels)}


def dump(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))


@pytest.fixture
def unchecked(monkeypatch):
    """torchvision compares MD5 sums before it unpickles; a replica cannot have those."""
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5=None: True)


@pytest.fixture
def cifar10(tmp_path):
    base = tmp_path / "cifar-10-batches-py"
    for number in range(1, 6):
        dump(base / f"data_batch_{number}", entry([number, number + 1], "labels"))
    dump(base / "test_batch", entry([9, 0, 4], "labels"))
    dump(base / "batches.meta", {"label_names": [f"kind {number}" for number in range(10)]})
    return tmp_path


def test_cifar10(cifar10, unchecked):
    data = open_cifar10(cifar10)
    assert data.train.labels.tolist() == [1, 2, 2, 3, 3, 4, 4, 5, 5, 6] and data.val.labels.tolist() == [9, 0, 4]
    assert data.classes[9] == "kind 9" and len(data.classes) == 10
    image = data.val.pictures.original(2)
    assert image.shape == (3, 32, 32) and image[:, 5, 5].tolist() == [40, 0, 0] and image[:, 5, 0].tolist() == [255] * 3
    assert open_cifar10(cifar10 / "cifar-10-batches-py", limit=4).train.labels.tolist() == [1, 2, 4, 5]
    assert torch.equal(open_cifar10(cifar10, limit=2).val.pictures.images[1], data.val.pictures.images[1])


def test_cifar100_has_the_fine_classes(tmp_path, unchecked):
    base = tmp_path / "cifar-100-python"
    for split, labels in (("train", [19, 29, 0]), ("test", [49, 33])):
        dump(base / split, {**entry(np.array(labels) % 20, "coarse_labels"), "fine_labels": labels})
    dump(base / "meta", {"fine_label_names": [f"fine {n}" for n in range(100)], "coarse_label_names": ["x"] * 20})
    data = open_cifar100(tmp_path)
    assert (data.train.labels.tolist(), data.val.labels.tolist()) == ([19, 29, 0], [49, 33])
    assert data.classes[49] == "fine 49"


def test_cifar_errors(cifar10):
    with pytest.raises(LayoutError, match=r"no folder .*cifar-100-python; expected .*kriz/cifar\.html"):
        open_cifar100(cifar10)
    with pytest.raises(LayoutError, match="no intact files"):
        open_cifar10(cifar10)  # other MD5 sums
    (cifar10 / "cifar-10-batches-py" / "data_batch_3").unlink()
    with pytest.raises(LayoutError, match=r"no file .*data_batch_3"):
        open_cifar10(cifar10)


def test_hub_without_the_library_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'eyespot\[datasets\]'"):
        open_hub("nowhere")


@pytest.fixture
def hub(tmp_path):
    return write_hub(tmp_path / "saved")


def test_hub_reads_a_saved_set(hub):
    with nothing_decoded():
        data = open_hub(hub)
    assert data.classes == ["sea", "rose"]
    assert data.train.labels.tolist() == [0, 1, 0, 1, 1, 0] and data.val.labels.tolist() == [1, 0, 1]
    images = data.val.pictures.read(0, 2, (8, 8))
    assert images.shape == (2, 3, 8, 8)
    assert images[0, 0].mean() * 255 == pytest.approx(250, abs=2) and images[1, 0].mean() < 0.1
    assert data.val.pictures.original(1).shape == (3, 16, 20)


def test_hub_columns_splits_and_limit(hub):
    data = open_hub(hub, label="word", val="train", limit=3)
    assert data.classes == ["blue", "red"]
    assert data.train.labels.tolist() == data.val.labels.tolist() == [0, 0, 1]
    again = open_hub(hub, limit=3)
    assert data.train.pictures.fingerprint() == again.train.pictures.fingerprint()
    assert again.train.pictures.fingerprint() != open_hub(hub).train.pictures.fingerprint()


def test_hub_errors(hub, tmp_path):
    with pytest.raises(ValueError, match="no split 'dev'; there are train, test"):
        open_hub(hub, val="dev")
    with pytest.raises(ValueError, match="no column 'img'; there are image, label, word"):
        open_hub(hub, image="img")
    with pytest.raises(LayoutError, match=r"nowhere: .*expected a folder written by `save_to_disk`"):
        open_hub(str(tmp_path / "nowhere"))
