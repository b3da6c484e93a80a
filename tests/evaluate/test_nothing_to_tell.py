"""A score over nothing is an error or a dash with a word, never 100 % or 0.00 m."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from eyespot.data.labelled.base import (
    ClassificationData,
    LabelledPictures,
    MatchingData,
    PointPair,
    RetrievalData,
    TensorPictures,
)
from eyespot.dense_tasks import IGNORE, dense_task
from eyespot.evaluate import evaluate
from eyespot.evaluate.nothing_to_tell import refuse_nothing_to_tell
from eyespot.evaluate.protocols.multitask.metrics import metric_for
from replicas import photo

FOUR = TensorPictures(torch.zeros(4, 3, 8, 8))


def labelled(*labels):
    return LabelledPictures(FOUR, torch.tensor(labels))


def test_one_class():
    data = ClassificationData(labelled(0, 0, 0, 0), labelled(0, 0, 0, 0), ["cat"])
    with pytest.raises(ValueError, match=r"knn: one class \(cat\) tells no model from another"):
        refuse_nothing_to_tell("knn", data)


def test_no_label():
    data = ClassificationData(labelled(0, 1, 0, 1), labelled(-1, -1, -1, -1), ["cat", "dog"])
    with pytest.raises(ValueError, match="linear: no validation picture has a label"):
        refuse_nothing_to_tell("linear", data)


def test_one_picture_to_be_found():
    data = RetrievalData(TensorPictures(torch.zeros(1, 3, 8, 8)), [["a word"]])
    with pytest.raises(ValueError, match="of 1 pictures none has to be found among others"):
        refuse_nothing_to_tell("retrieval", data)


def test_no_points():
    nowhere = torch.zeros(0, 2)
    data = MatchingData(FOUR, FOUR, [PointPair(0, 1, nowhere, nowhere, (8, 8), (8, 8), 8.0)])
    with pytest.raises(ValueError, match="none of 1 pairs of pictures has a point"):
        refuse_nothing_to_tell("correspondence", data)


def test_evaluate_asks(tmp_path):
    for split in ("train", "val"):
        photo(tmp_path / split / "cat" / "a.jpg")
    with pytest.raises(ValueError, match="knn: one class"):
        evaluate(["timm/test_vit?pretrained=false"], ["knn"], {"knn": str(tmp_path)})


@pytest.mark.parametrize(
    ("task", "label"),
    [
        (dense_task("classes", 3), torch.full((4, 4), 1, dtype=torch.uint8)),
        (dense_task("classes", 3), torch.full((4, 4), IGNORE, dtype=torch.uint8)),
        (dense_task("saliency"), torch.zeros(4, 4, dtype=torch.uint8)),
        (dense_task("saliency"), torch.ones(4, 4, dtype=torch.uint8)),
        (dense_task("depth"), torch.zeros(4, 4)),
        (dense_task("boundary"), torch.zeros(4, 4, dtype=torch.uint8)),
        (dense_task("keypoints", 2), torch.zeros(2, 4, 4)),
    ],
)
def test_labels_that_leave_nothing_to_measure(task, label):
    metric = metric_for(task)
    output = torch.zeros(task.channels, 4, 4)
    output[-1] = 1  # as the labels have it, where they have one
    metric.update(output, label)
    assert all(math.isnan(value) for value in metric.compute().values())


def test_a_split_of_one_picture_is_measured(tmp_path):
    from eyespot.data.sets.folders import open_mask_folder

    for split in ("train", "val"):
        photo(tmp_path / split / "images" / "a.jpg", height=32, width=32)
        (tmp_path / split / "annotations").mkdir(parents=True)
        mask = np.arange(32)[:, None].repeat(32, 1) // 16
        Image.fromarray(mask.astype(np.uint8)).save(tmp_path / split / "annotations" / "a.png")
    assert len(open_mask_folder(tmp_path).val.labels) == 1
    found = evaluate(["timm/test_vit?pretrained=false"], ["segmentation"], {"segmentation": str(tmp_path)}, size=32)
    (row,) = found.rows.values()
    assert 0 <= row["segmentation/mIoU"] <= 1
