"""Sets that were read are measured; how they are read is tested in tests/data."""

import numpy as np
import pytest

from eyespot.data.sets import DATASETS, open_ade20k, open_hub, open_spair
from eyespot.evaluate import TASKS, FeatureBank, evaluate
from eyespot.evaluate.protocols import correspondence, knn, segmentation
from replicas import depth, mask, photo, save, write_hub, write_spair


def test_data_sets_serve_tasks_that_there_are():
    assert {task for dataset in DATASETS.values() for task in dataset.openers} <= set(TASKS)


def test_a_lazy_set_can_be_measured(tmp_path, colours):
    """Grey is class 1, black class 2; everything else is ignored."""
    for split in ("training", "validation"):
        for number in range(4):
            picture = np.zeros((32, 32, 3), dtype=np.uint8)
            picture[:, : 8 * number] = 200
            save(tmp_path / "images" / split / f"{number}.jpg", picture)
            label = np.full((32, 32), 2)
            label[:, : 8 * number] = 1
            label[0] = 0
            mask(tmp_path / "annotations" / split / f"{number}.png", label)
    assert segmentation.run(FeatureBank(colours), open_ade20k(tmp_path))["mIoU"] > 0.9


def test_spair_can_be_measured(tmp_path, colours):
    values = correspondence.run(FeatureBank(colours), open_spair(write_spair(tmp_path)))
    assert 0 <= values["PCK@0.1"] <= 1


def test_evaluate_takes_names_with_options(tmp_path, colour_encoder):
    for split in ("train", "val"):
        for number in range(3):
            photo(tmp_path / split / "images" / f"{number}.jpg", 60 * number, 32, 32)
            depth(tmp_path / split / "depth" / f"{number}.png", [[100 + 100 * number] * 32] * 32)
            mask(tmp_path / split / "annotations" / f"{number}.png", [[number] * 32] * 32)
    data = {"depth": f"depth_folder:{tmp_path}?scale=0.01&high=4", "segmentation": f"mask_folder:{tmp_path}?classes=3"}
    table = evaluate({"x": colour_encoder()}, ("depth", "segmentation"), data)
    assert table.rows["x"]["depth/RMSE"] < 1 and table.rows["x"]["segmentation/mIoU"] > 0.3
    with pytest.raises(ValueError, match="no option of the data of depth 'scala'; did you mean 'scale'"):
        evaluate({"x": colour_encoder()}, ("depth",), {"depth": f"depth_folder:{tmp_path}?scala=1"})
    with pytest.raises(ValueError, match="did you mean 'depth_folder'"):
        evaluate({"x": colour_encoder()}, ("depth",), {"depth": f"depth_foldr:{tmp_path}"})


def test_tasks_on_one_folder_share_their_features(tmp_path, colour_encoder):
    for split in ("train", "val"):
        for name, grey in (("dark", 20), ("light", 220)):
            for number in range(5):
                photo(tmp_path / split / name / f"{number}.jpg", grey + number, 32, 32)
    encoder = colour_encoder()
    source = f"image_folder:{tmp_path}"
    table = evaluate({"x": encoder}, ("knn", "linear"), {"knn": source, "linear": source}, timing=False)
    assert table.rows["x"]["linear/accuracy"] == 1
    assert encoder.pictures_seen <= 21  # 10 + 10, and one to count operations


def test_a_saved_set_of_the_hub_can_be_measured(tmp_path, colours):
    assert knn.run(FeatureBank(colours), open_hub(write_hub(tmp_path / "saved")))["accuracy"] == 1
