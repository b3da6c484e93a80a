"""Damaged lists and annotations of data sets are named, whatever in them is damaged; found by the fuzz."""

import json

import numpy as np
import pytest
import scipy.io

from eyespot.data.sets.coco import open_coco
from eyespot.data.sets.imagenet import open_imagenet_names
from eyespot.data.sets.spair import open_spair
from multitask_replicas import write_coco
from replicas import CAT, photo, text, write_spair


def imagenet(folder):
    photo(folder / "val" / "ILSVRC2012_val_00000001.JPEG")
    return folder


@pytest.mark.parametrize("line", ["ILSVRC2012_val_00000001", "ILSVRC2012_val_00000001,"])
def test_a_label_that_is_missing_in_kaggles_file(tmp_path, line):
    text(imagenet(tmp_path) / "LOC_val_solution.csv", "ImageId,PredictionString", line)
    with pytest.raises(ValueError, match=r"LOC_val_solution\.csv cannot be read.*its columns are ImageId and"):
        open_imagenet_names(tmp_path, names="wnid")


@pytest.mark.parametrize("line", ["x", "7"])
def test_a_number_that_is_none_in_the_devkit(tmp_path, line):
    synsets = np.array([(1, "n01", "tench")], dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")])
    scipy.io.savemat(imagenet(tmp_path) / "meta.mat", {"synsets": np.repeat(synsets, 2)})
    text(tmp_path / "ILSVRC2012_validation_ground_truth.txt", line)
    with pytest.raises(ValueError, match=r"ground_truth\.txt cannot be read.*a class number per line"):
        open_imagenet_names(tmp_path, names="wnid")
    (tmp_path / "meta.mat").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"meta\.mat has no readable entry synsets"):
        open_imagenet_names(tmp_path, names="wnid")


@pytest.mark.parametrize("key", ["src_kps", "trg_bndbox", "category", "src_imname"])
@pytest.mark.parametrize("value", [None, {"a": 1}, [[["x"]]]])
def test_an_annotation_of_spair_of_another_kind(tmp_path, key, value):
    file = write_spair(tmp_path) / "PairAnnotation" / "test" / f"{CAT}.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(ValueError, match=f"{CAT}.json cannot be read"):
        open_spair(tmp_path)


@pytest.mark.parametrize(
    "content",
    ["<html>", "[]", '{"images": 3}', '{"images": [{"file": 3, "captions": []}]}', '{"images": [{"file": "a"}]}'],
)
def test_captions_of_another_kind(tmp_path, content):
    photo(tmp_path / "val2017" / "images" / "a.jpg")
    text(tmp_path / "val2017" / "annotations.json", content)
    with pytest.raises(ValueError, match=r"annotations\.json cannot be read"):
        open_coco(tmp_path)


@pytest.mark.parametrize("key", ["classes", "images"])
def test_annotations_of_masks_of_another_kind(tmp_path, key):
    from eyespot.data.sets import open_multitask

    file = write_coco(tmp_path) / "train2017" / "annotations.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: None}))
    with pytest.raises(ValueError, match=r"annotations\.json cannot be read"):
        open_multitask(f"coco:{tmp_path}", "train")
