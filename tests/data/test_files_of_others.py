"""What other tools write into folders, masks, depth maps and texts is read right or refused in words of ours."""

import io
import resource

import numpy as np
import pytest
import torch
from PIL import Image

from eyespot.data import open_source
from eyespot.data.labelled.base import read_fitted
from eyespot.data.labelled.label_files import read_mask
from eyespot.data.labelled.labels import classes_of
from eyespot.data.sets.folders import open_depth_folder, open_image_folder, open_mask_folder
from eyespot.encoders.text.embeddings import read_names
from eyespot.evaluate.protocols.segmentation import MeanIoU, refuse_single_class
from eyespot.files import read_text
from eyespot.recipes.presets import read_settings


def picture(path, colour=(200, 0, 0), size=(32, 32)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, format="JPEG" if path.suffix == ".jfif" else None)


# Folders


def test_training_and_evaluation_see_the_same_pictures(tmp_path):
    for split in ("train", "val"):
        for name in ("a", "b"):
            for suffix in (".jpg", ".PNG", ".tif", ".gif", ".ppm", ".avif", ".jfif"):
                picture(tmp_path / split / name / f"x{suffix}")
            picture(tmp_path / split / name / "deeper/y.png")
            (tmp_path / split / name / "._x.jpg").write_bytes(b"\0\5\26\7 Mac OS X")
            (tmp_path / split / name / "notes.txt").write_text("x")
    data = open_image_folder(tmp_path)
    trained_on = open_source(str(tmp_path / "train"))
    assert len(data.train.labels) == len(data.val.labels) == len(trained_on) == 16
    assert data.train.labels.tolist() == [trained_on.label(index) for index in range(16)]
    assert data.val.pictures.read(0, 16, (32, 32)).shape == (16, 3, 32, 32)


@pytest.mark.parametrize("splits", [("train", "val"), ("Train", "Test", "dev")])
def test_splits_are_no_classes(tmp_path, splits):
    for split in splits:
        for name in ("cat", "dog"):
            picture(tmp_path / split / name / "a.jpg")
    source = open_source(str(tmp_path))
    assert len(source) == 2 * len(splits) and source.classes is None  # all of them, for learning without labels
    with pytest.raises(ValueError, match=rf"has no labels; .* are splits, no classes: give one of them, {tmp_path}/"):
        classes_of([source])
    assert classes_of([open_source(str(tmp_path / splits[0]))]).names == ["cat", "dog"]


def test_a_class_may_be_called_like_a_split_among_others(tmp_path):
    for name in ("test", "cat"):
        picture(tmp_path / name / "a.jpg")
    assert open_source(str(tmp_path)).classes == ["cat", "test"]


def test_the_stray_picture_is_named(tmp_path):
    for name in ("cat/a.jpg", "dog/a.jpg", "contact_sheet.jpg"):
        picture(tmp_path / name)
    with pytest.raises(ValueError, match=r"contact_sheet.jpg lies beside its 2 folders: move it away"):
        classes_of([open_source(str(tmp_path))])


@pytest.mark.parametrize("length", [100, 3000])
def test_a_thin_picture_is_cut_before_it_is_enlarged(tmp_path, length):
    line = Image.fromarray((np.arange(length) % 251).astype(np.uint8)[:, None])
    line.convert("RGB").save(tmp_path / "line.png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = read_fitted([tmp_path / "line.png"], (224, 224), crop=True)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 200_000  # KiB; whole it is 600 MB and more
    middle = (length // 2 - 1) % 251 / 255
    assert found.shape == (1, 3, 224, 224) and float(found.mean()) == pytest.approx(middle, abs=0.01)


@pytest.mark.parametrize("size", [(300, 200), (97, 131), (256, 256), (40, 41)])
def test_the_crop_is_that_of_the_whole_enlarged_picture(tmp_path, size):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = read_fitted([tmp_path / "a.png"], (64, 48), crop=True)[0]
    scale = max(64 / size[1], 48 / size[0]) * 256 / 224
    whole = Image.fromarray(pixels).resize((round(size[0] * scale), round(size[1] * scale)), Image.Resampling.BICUBIC)
    left, top = (whole.width - 48) // 2, (whole.height - 64) // 2
    wanted = np.asarray(whole.crop((left, top, left + 48, top + 64))).transpose(2, 0, 1)
    assert int((found * 255 - torch.from_numpy(wanted.copy())).abs().max()) <= 1


# Masks and depth maps


def masks(folder, values, mode=None):
    for split in ("train", "val"):
        for index, mask in enumerate(values):
            picture(folder / split / "images" / f"{index}.png", size=mask.shape[::-1])
            place = folder / split / "annotations" / f"{index}.png"
            place.parent.mkdir(exist_ok=True)
            (Image.fromarray(mask).convert(mode) if mode else Image.fromarray(mask)).save(place)
    return folder


HALVES = [np.repeat([[0], [255]], 4, 0).repeat(8, 1).astype(np.uint8) for _ in range(2)]


def test_black_and_white_masks_are_refused_until_it_is_said_what_white_is(tmp_path):
    folder = masks(tmp_path, HALVES)
    with pytest.raises(ValueError, match=r"show no class but 0, beside pixels labelled 255.*numbers=0,255"):
        open_mask_folder(folder)
    data = open_mask_folder(folder, numbers=(0, 255))
    assert data.classes == 2 and data.val.labels[0].tolist() == (HALVES[0] // 255).tolist()
    with pytest.raises(ValueError, match="leave classes= out"):
        open_mask_folder(folder, numbers=(0, 255), classes=2)
    with pytest.raises(ValueError, match="holds 255, which is no class"):
        _ = open_mask_folder(folder, numbers=(0, 1), ignore=7).val.labels[0]


def test_one_bit_is_0_and_1(tmp_path):
    folder = masks(tmp_path, HALVES, mode="1")
    data = open_mask_folder(folder)
    assert data.classes == 2 and data.val.labels[0].tolist() == (HALVES[0] // 255).tolist()
    assert torch.equal(read_mask(folder / "val/annotations/0.png").long(), data.val.labels[0].long())


@pytest.mark.parametrize(("truth", "message"), [([255, 255], "no class"), ([1, 255], "a single class")])
def test_a_score_over_fewer_than_two_classes_is_an_error(truth, message):
    metric = MeanIoU(3, 255)
    metric.update(torch.tensor([1, 1]), torch.tensor(truth))
    with pytest.raises(ValueError, match=f"{message} beside pixels labelled 255"):
        refuse_single_class(metric)


def depths(folder, train, val):
    for split, depth in (("train", train), ("val", val)):
        for index in range(3):
            picture(folder / split / "images" / f"{index}.png", size=depth.shape[::-1])
            (folder / split / "depth").mkdir(exist_ok=True)
            np.save(folder / split / "depth" / f"{index}.npy", depth.astype(np.float32))
    return folder


NEAR = np.full((8, 10), 2.0)
FAR = np.where(np.arange(8)[:, None] < 6, 30.0, 4.0) + np.zeros((8, 10))


def test_depths_beyond_the_range_are_told_of(tmp_path):
    with pytest.warns(UserWarning, match=r"75% of the depths in .*val are above 10.0 m .* set high=METRES"):
        open_depth_folder(depths(tmp_path, NEAR, FAR))


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("values", [NEAR * 1000, NEAR * 0])
def test_a_split_without_depths_is_an_error(tmp_path, split, values):
    maps = {"train": NEAR, "val": NEAR, split: values}
    with pytest.raises(ValueError, match=rf"0.0% of the depths in .*{split} are up to 10.0 m .*scale= \(0.001 now\)"):
        open_depth_folder(depths(tmp_path, **maps))


def test_depths_within_the_range_need_no_word(tmp_path, recwarn):
    open_depth_folder(depths(tmp_path, NEAR, FAR), high=80)
    assert not recwarn.list


# Hugging Face tables


def hub(folder, train, val, names=None):
    library = pytest.importorskip("datasets")
    library.disable_progress_bars()
    file = io.BytesIO()
    Image.new("RGB", (32, 32)).save(file, "PNG")

    def split(labels, order):
        kind = library.ClassLabel(names=order) if order else library.Value("string")
        features = library.Features({"image": library.Image(), "label": kind})
        rows = {"image": [{"bytes": file.getvalue(), "path": None}] * len(labels), "label": labels}
        return library.Dataset.from_dict(rows, features=features)

    names = names or {}
    parts = {"train": split(train, names.get("train")), "test": split(val, names.get("val"))}
    library.DatasetDict(parts).save_to_disk(folder)
    return folder


def test_splits_that_number_their_classes_differently_are_matched_by_name(tmp_path):
    from eyespot.data.sets.hub import open_hub

    order = {"train": ["apple", "leaf", "sky"], "val": ["sky", "leaf"]}
    data = open_hub(hub(tmp_path / "set", [0, 1, 2], [0, 0, 1], order))
    assert data.classes == order["train"] and data.val.labels.tolist() == [2, 2, 1]


def test_hidden_labels(tmp_path):
    from eyespot.data.sets.hub import open_hub

    order = {"train": ["cat", "dog"], "val": ["cat", "dog"]}
    with pytest.raises(ValueError, match=r"split test of .* has no labels .*name another: \?val="):
        open_hub(hub(tmp_path / "hidden", [0, 1], [-1, -1], order))
    data = open_hub(hub(tmp_path / "some", [0, 1, -1], [-1, 1], order))
    assert data.train.labels.tolist() == [0, 1] and data.val.labels.tolist() == [1]


# Texts


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_letter(tmp_path, encoding):
    (tmp_path / "names.txt").write_text("äpple\r\nleaf\n", encoding=encoding, newline="")
    assert read_text(tmp_path / "names.txt") == "äpple\nleaf\n"
    assert read_names(tmp_path / "names.txt") == ("äpple", "leaf")
    (tmp_path / "mine.yaml").write_text("seed: 3\n", encoding=encoding)
    assert read_settings("eupe", ["laptop"], tmp_path / "mine.yaml")["seed"] == 3
    (tmp_path / "names.json").write_text('["a", "b"]', encoding=encoding)
    assert read_names(tmp_path / "names.json") == ("a", "b")


def test_another_encoding_names_the_file(tmp_path):
    (tmp_path / "names.txt").write_bytes("äpple\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"names.txt is not UTF-8 text \(byte 0\); save it as UTF-8"):
        read_names(tmp_path / "names.txt")
