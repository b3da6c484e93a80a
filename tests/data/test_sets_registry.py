import inspect
from typing import get_type_hints

import pytest

from eyespot.data.sets import DATASETS, find_opener, open_ade20k, open_image_folder, open_imagenet_names


def openers():
    return [
        pytest.param(opener, id=f"{name}-{task}")
        for name, dataset in DATASETS.items()
        for task, opener in dataset.openers.items()
    ]


@pytest.mark.parametrize("opener", openers())
def test_every_opener_takes_a_folder_a_limit_and_typed_options(opener):
    parameters = inspect.signature(opener).parameters
    assert list(parameters)[:2] == ["folder", "limit"] and parameters["limit"].default is None
    assert set(get_type_hints(opener)) == {*parameters, "return"}
    assert all(parameter.default is not parameter.empty for parameter in list(parameters.values())[1:])


def test_every_data_set_says_what_it_looks_like_and_serves_tasks():
    for name, dataset in DATASETS.items():
        assert "FOLDER" in dataset.layout.tree or name == "hf"
        assert dataset.openers
    served = {task for dataset in DATASETS.values() for task in dataset.openers}
    assert {"knn", "linear", "few_shot", "zero_shot", "retrieval", "segmentation"} <= served
    assert {"depth", "normals", "correspondence", "reading"} <= served


def test_official_sets_say_where_to_get_the_files():
    own = {"image_folder", "mask_folder", "depth_folder", "caption_folder"}
    assert all(bool(dataset.layout.where) != (name in own) for name, dataset in DATASETS.items())


def test_a_name_chooses_the_reader_and_a_path_the_tasks_own():
    assert find_opener("ade20k:/data/ADE", "segmentation", open_image_folder) == (open_ade20k, "/data/ADE")
    assert find_opener("imagenet:x", "zero_shot", open_image_folder) == (open_imagenet_names, "x")
    for path in ("/data/ade20k", "data", "C:\\data", "/odd:name/x", "./odd:name"):
        assert find_opener(path, "knn", open_image_folder) == (open_image_folder, path)
    assert find_opener("hf:uoft-cs/cifar10", "knn", open_image_folder)[1] == "uoft-cs/cifar10"


def test_a_folder_with_a_colon_in_its_name_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd:name").mkdir()
    assert find_opener("odd:name", "knn", open_image_folder) == (open_image_folder, "odd:name")


def test_unknown_names_and_tasks_are_answered_with_the_nearest():
    with pytest.raises(ValueError, match="no data set 'ade20'; did you mean 'ade20k'"):
        find_opener("ade20:/x", "segmentation", open_image_folder)
    with pytest.raises(ValueError, match="no data set 'qqqq'; there are imagenet, cifar10"):
        find_opener("qqqq:/x", "knn", open_image_folder)
    with pytest.raises(
        ValueError, match=r"ade20k is no data set for depth, but for segmentation; for depth there are nyu, rgbd"
    ):
        find_opener("ade20k:/x", "depth", open_image_folder)
