import numpy as np
import pytest
import torch
from PIL import Image

from eyespot.data.sets import LayoutError, open_ade20k, open_camvid, open_cityscapes, open_mask_folder, open_voc
from eyespot.data.sets.cityscapes import NUMBERS
from replicas import mask, nothing_decoded, photo, save, text


def test_the_refusal_of_decoding_works(tmp_path):
    path = photo(tmp_path / "a.jpg")
    with nothing_decoded(), Image.open(path) as picture:
        assert picture.size == (8, 6)
        with pytest.raises(AssertionError, match="decoded"):
            np.asarray(picture)


@pytest.fixture
def ade20k(tmp_path):
    for split, short in (("training", "train"), ("validation", "val")):
        for number in (1, 2, 3):
            name = f"ADE_{short}_{number:08d}"
            photo(tmp_path / "images" / split / f"{name}.jpg", 40 * number, 2, 3)
            mask(tmp_path / "annotations" / split / f"{name}.png", [[0, 1, 2], [149, 150, number]])
    return tmp_path


def test_ade20k_leaves_out_other_and_counts_from_0(ade20k):
    with nothing_decoded():
        data = open_ade20k(ade20k)
    assert (data.classes, data.ignore) == (150, 255)
    assert data.val.labels[1].tolist() == [[255, 0, 1], [148, 149, 1]]
    assert data.train.labels[2].tolist() == [[255, 0, 1], [148, 149, 2]]
    assert data.val.pictures.original(1).float().mean() == pytest.approx(80, abs=2)


def test_ade20k_limit_is_even_and_per_split(ade20k):
    data = open_ade20k(ade20k, limit=2)
    assert [path.name for path in data.train.pictures.paths] == ["ADE_train_00000001.jpg", "ADE_train_00000002.jpg"]
    assert len(data.val.labels) == 2


def test_ade20k_errors_say_what_is_missing_and_where_to_get_it(ade20k, tmp_path):
    with pytest.raises(
        LayoutError, match=r"no folder .*images/training; expected .*ADEChallengeData2016.*sceneparsing"
    ):
        open_ade20k(tmp_path / "annotations")
    (ade20k / "annotations" / "validation" / "ADE_val_00000002.png").unlink()
    with pytest.raises(LayoutError, match=r"no mask .*ADE_val_00000002\.png for ADE_val_00000002\.jpg"):
        open_ade20k(ade20k)
    mask(ade20k / "annotations" / "validation" / "ADE_val_00000002.png", [[0, 1, 151], [0, 0, 200]])
    with pytest.raises(ValueError, match=r"00000002\.png: the mask holds 151, 200, which is no class"):
        open_ade20k(ade20k).val.labels[1]
    mask(ade20k / "annotations" / "validation" / "ADE_val_00000002.png", [[0, 1], [1, 1], [1, 1]])
    with pytest.raises(ValueError, match="is 2x3, its picture 3x2"):
        open_ade20k(ade20k).val.labels[1]


@pytest.fixture
def voc(tmp_path):
    base = tmp_path / "VOCdevkit" / "VOC2012"
    palette = [value for index in range(256) for value in (index, 255 - index, 7)]
    for number in range(1, 6):
        name = f"2007_{number:06d}"
        photo(base / "JPEGImages" / f"{name}.jpg", 30 * number, 2, 3)
        picture = Image.fromarray(np.array([[0, 255, 20], [number, 0, 1]], dtype=np.uint8), mode="L").convert("P")
        picture.putpalette(palette)
        (base / "SegmentationClass").mkdir(exist_ok=True)
        picture.save(base / "SegmentationClass" / f"{name}.png")
        assert Image.open(base / "SegmentationClass" / f"{name}.png").mode == "P"
    text(base / "ImageSets" / "Segmentation" / "train.txt", "2007_000005", "2007_000001", "2007_000004")
    text(base / "ImageSets" / "Segmentation" / "val.txt", "2007_000002", "2007_000003")
    return base


@pytest.mark.parametrize("up", [0, 1, 2])
def test_voc_palettes_are_class_numbers_and_outlines_are_ignored(voc, up):
    with nothing_decoded():
        data = open_voc([voc, *voc.parents][up])
    assert (data.classes, data.ignore) == (21, 255)
    assert [len(data.train.labels), len(data.val.labels)] == [3, 2]
    assert data.val.labels[1].tolist() == [[0, 255, 20], [3, 0, 1]]
    assert data.train.labels[0].tolist() == [[0, 255, 20], [5, 0, 1]]


def test_voc_other_lists_and_masks(voc):
    text(voc / "ImageSets" / "Segmentation" / "trainaug.txt", "2007_000001")
    mask(voc / "Aug" / "2007_000001.png", [[7, 7, 7], [7, 7, 7]])
    for name in ("2007_000002", "2007_000003"):
        mask(voc / "Aug" / f"{name}.png", [[8, 8, 8], [8, 8, 8]])
    data = open_voc(voc, train="trainaug", masks="Aug")
    assert [int(label.unique()) for label in data.train.labels] == [7]
    assert open_voc(voc, limit=1).train.pictures.paths[0].stem == "2007_000005"


def test_voc_errors(voc):
    with pytest.raises(LayoutError, match=r"no file .*Segmentation/train\.txt; .*host\.robots\.ox\.ac\.uk"):
        open_voc(voc / "JPEGImages")
    (voc / "JPEGImages" / "2007_000003.jpg").unlink()
    with pytest.raises(LayoutError, match=r"no file .*2007_000003\.jpg"):
        open_voc(voc)


@pytest.fixture
def cityscapes(tmp_path):
    for split, cities in (("train", ("aachen", "zurich")), ("val", ("munster",))):
        for city in cities:
            for number in range(2):
                name = f"{city}_{number:06d}_000019"
                photo(tmp_path / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", 100, 2, 4)
                rows = [[0, 7, 8, 33], [255, 11, 18, number + 23]]
                mask(tmp_path / "gtFine" / split / city / f"{name}_gtFine_labelIds.png", rows)
                # What lies beside them in the official archive.
                mask(tmp_path / "gtFine" / split / city / f"{name}_gtFine_instanceIds.png", rows)
    return tmp_path


def test_cityscapes_19_classes(cityscapes):
    with nothing_decoded():
        data = open_cityscapes(cityscapes)
    assert (data.classes, data.ignore) == (19, 255)
    assert [len(data.train.labels), len(data.val.labels)] == [4, 2]
    assert data.val.labels[1].tolist() == [[255, 0, 1, 18], [255, 2, 255, 11]]
    assert [path.parent.name for path in open_cityscapes(cityscapes, limit=2).train.pictures.paths] == [
        "aachen",
        "zurich",
    ]


def test_cityscapes_classes_are_those_of_the_benchmark():
    """Trained classes are numbered 0 to 18 in order of their ids."""
    assert list(NUMBERS) == sorted(NUMBERS) and len(NUMBERS) == 19
    assert list(NUMBERS.values())[::9] == ["road", "terrain", "bicycle"]


def test_cityscapes_errors(cityscapes):
    next((cityscapes / "gtFine" / "val" / "munster").glob("*000001*labelIds.png")).unlink()
    with pytest.raises(LayoutError, match=r"no mask .*munster_000001_000019_gtFine_labelIds.*cityscapes-dataset\.com"):
        open_cityscapes(cityscapes)
    (cityscapes / "leftImg8bit" / "val" / "munster").rename(cityscapes / "elsewhere")
    with pytest.raises(LayoutError, match="no pictures in"):
        open_cityscapes(cityscapes)


@pytest.fixture
def masks(tmp_path):
    for split in ("train", "val"):
        for number in range(3):
            photo(tmp_path / split / "images" / f"{number}.jpg", 90, 2, 3)
            mask(tmp_path / split / "annotations" / f"{number}.png", [[number, 0, 11], [255, number, 0]])
    return tmp_path


def test_mask_folder_is_lazy_if_it_knows_the_classes(masks):
    with nothing_decoded():
        data = open_mask_folder(masks, classes=12)
    assert (data.classes, data.ignore) == (12, 255)
    assert data.val.labels[2].tolist() == [[2, 0, 11], [255, 2, 0]]
    assert open_mask_folder(masks).classes == 12
    with pytest.raises(ValueError, match="the mask holds 11, which is no class"):
        open_mask_folder(masks, classes=11).val.labels[0]


def test_camvid_by_name(masks):
    data = open_camvid(masks)
    assert (data.classes, data.ignore) == (11, 11)
    with pytest.raises(ValueError, match="the mask holds 255"):
        data.val.labels[0]


def test_equal_files_read_otherwise_have_other_fingerprints(masks):
    plain, counted = open_mask_folder(masks), open_mask_folder(masks, classes=12)
    assert plain.train.labels.fingerprint() != counted.train.labels.fingerprint()
    assert plain.train.labels.fingerprint() == open_mask_folder(masks).train.labels.fingerprint()


def test_16_bit_masks_keep_their_numbers(tmp_path):
    for split in ("train", "val"):
        photo(tmp_path / split / "images" / "0.jpg", 90, 1, 2)
        save(tmp_path / split / "annotations" / "0.png", np.array([[65535, 3]], dtype=np.uint16))
    data = open_mask_folder(tmp_path, ignore=65535)
    assert data.classes == 4 and data.train.labels[0].tolist() == [[65535, 3]]


def test_camvid_of_the_shared_folder(shared):
    with nothing_decoded():
        data = open_camvid(shared / "data" / "camvid", limit=3)
    labels = torch.cat([label.flatten() for label in data.val.labels]).unique()
    assert set(labels.tolist()) <= set(range(12)) and len(labels) > 6
