"""The floor of every table: values by independent computation, and where it stands."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

from eyespot.data.sets import (
    ClassificationData,
    DensePictures,
    DepthData,
    LabelledPictures,
    MatchingData,
    NormalsData,
    PointPair,
    RetrievalData,
    SegmentationData,
    TensorPictures,
    ToyboxConfig,
    open_rgbd_depth,
)
from eyespot.evaluate import TASKS, FeatureBank, evaluate, resolution_curve
from eyespot.evaluate.protocols import depth
from eyespot.evaluate.results import FLOOR, ResultTable
from eyespot.report import write_evaluation_report
from eyespot.report.pages.merge import merge_tables
from multitask_stand_ins import Coloured

PICTURES = TensorPictures(torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)))


def split(labels):
    return DensePictures(PICTURES, labels)


def test_classes():
    names = ["a", "b", "c", "d", "e", "f", "g"]
    train = LabelledPictures(
        TensorPictures(torch.rand(12, 3, 8, 8)), torch.tensor([2, 2, 2, 1, 1, 0, 3, 4, 5, 6, -1, -1])
    )
    val = LabelledPictures(TensorPictures(torch.rand(6, 3, 8, 8)), torch.tensor([2, 1, 0, 2, 6, -1]))
    data = ClassificationData(train, val, names)
    assert TASKS["knn"].floor(data) == {"accuracy": 0.4, "best": 0.4}
    assert TASKS["classification"].floor(data) == {"top1": 0.4, "top5": 0.8}  # 2, 1, and the first of one picture each
    unlabelled = ClassificationData(LabelledPictures(train.pictures, train.labels * 0 - 1), val, names)
    assert TASKS["zero_shot"].floor(unlabelled) == {"accuracy": 0.4, "top5": 1.0}


def test_depth_is_the_training_mean_by_numpy():
    generator = torch.Generator().manual_seed(1)
    train, val = (1 + 4 * torch.rand(4, 9, 7, generator=generator) for _ in range(2))
    train[0], val[1, :5], val[2] = 0, 0, 0
    mean = train[train > 0].numpy().astype(np.float64).mean()
    kept = [one[one > 0].numpy().astype(np.float64) for one in (val[0], val[1], val[3])]
    found = TASKS["depth"].floor(DepthData(split(train), split(val)))
    assert found["RMSE"] == pytest.approx(np.mean([np.sqrt(np.mean((mean - one) ** 2)) for one in kept]), rel=1e-6)
    assert found["AbsRel"] == pytest.approx(np.mean([np.mean(np.abs(mean - one) / one) for one in kept]), rel=1e-6)
    ratios = [np.maximum(mean / one, one / mean) for one in kept]
    assert found["delta1"] == pytest.approx(np.mean([np.mean(ratio < 1.25) for ratio in ratios]))


def test_normals_are_the_mean_direction_by_numpy():
    vectors = (
        torch.randn(2, 4, 3, 6, 6, generator=torch.Generator().manual_seed(2))
        + torch.tensor([0.5, 0, -2])[:, None, None]
    )
    train, val = torch.nn.functional.normalize(vectors, dim=2)
    train[:, :, 0] = 0
    mean = train.numpy().astype(np.float64).transpose(0, 2, 3, 1).reshape(-1, 3).sum(0)
    cosines = np.einsum("nchw,c->nhw", val.numpy().astype(np.float64), mean / np.linalg.norm(mean))
    found = TASKS["normals"].floor(NormalsData(split(train), split(val)))
    assert found["mean"] == pytest.approx(np.degrees(np.arccos(cosines)).mean(), rel=1e-5)


def test_masks_are_the_most_frequent_pixel_by_hand():
    train = torch.tensor([[[0, 1], [1, 9]]]).expand(4, 2, 2)
    val = torch.tensor([[[1, 1], [1, 2]]]).expand(4, 2, 2)
    found = TASKS["segmentation"].floor(SegmentationData(split(train), split(val), classes=4, ignore=9))
    assert found == {"mIoU": pytest.approx((3 / 4 + 0) / 2)}


def test_points_are_in_the_middle():
    near, far = torch.tensor([[11.0, 5.0]]), torch.tensor([[1.0, 1.0], [19.0, 9.0]])
    pairs = [PointPair(0, 1, points, points, (10, 20), (10, 20), reach=20.0) for points in (near, far)]
    found = TASKS["correspondence"].floor(MatchingData(PICTURES, PICTURES, pairs))
    assert found["PCK@0.1"] == pytest.approx(1 / 3) and found["PCK@0.1/image"] == 0.5


def test_retrieval_gives_the_first_answers():
    found = TASKS["retrieval"].floor(RetrievalData(PICTURES, [["a", "b"], ["c"], ["d"], ["e", "f", "g", "h", "i"]]))
    assert found["I2T-R@1"] == 1 / 4 and found["I2T-R@5"] == 1 and found["I2T-R@10"] == 1
    assert found["T2I-R@1"] == pytest.approx(2 / 9) and found["T2I-R@5"] == 1
    assert set(found) == {metric.name for metric in TASKS["retrieval"].metrics}


def test_multi_task_answers_by_hand():
    """Of the validation labels, which are the only ones that are read."""
    data = Coloured()
    found = TASKS["multitask"].floor(data)
    maps = [data.read(index).maps for index in range(len(data))]
    metres = torch.cat([one["depth"].flatten() for one in maps]).double()
    metres = metres[metres > 0]
    assert found["depth RMSE"] == pytest.approx(float(metres.std(correction=0)), rel=1e-5)
    classes = torch.cat([one["segmentation"].flatten() for one in maps])
    ((_, most),) = Counter(classes[classes != 255].tolist()).most_common(1)
    shown = classes[classes != 255]
    assert found["segmentation mIoU"] == pytest.approx(most / len(shown) / len(shown.unique()))
    salient = torch.cat([one["saliency"].flatten() for one in maps])
    share = float((salient == 1).sum() / (salient != 255).sum())
    assert found["saliency maxF"] == pytest.approx(1.3 * share / (0.3 * share + 1), rel=1e-5)
    assert found["normals mErr"] > 0 and 0 <= found["boundary odsF"] <= 1 and 0 <= found["keypoints PCK"] <= 1


@pytest.fixture(scope="module")
def toybox():
    return ToyboxConfig(train=12, val=6, pairs=3, size=32)


def test_it_stands_in_every_form_of_the_table_and_is_no_model(colours, toybox, tmp_path, capsys):
    table = evaluate({"a": colours}, ("knn", "depth", "segmentation"), toybox)
    assert set(table.floor) == {column.key for column in table.columns if column.task != "cost"} - {"knn/best_k"}
    assert list(table.rows) == ["a"] and not table.best(table.columns[-1])
    value = f"{table.floor['depth/RMSE']:.3f}"
    lines = table.to_markdown().splitlines()
    assert lines[-1].startswith(f"| {FLOOR} | – |") and value in lines[-1] and "**" not in lines[-1]
    assert table.to_csv().splitlines()[-1].startswith(f"{FLOOR},")
    assert ResultTable.from_json(table.to_json()) == table
    table.print()
    assert FLOOR.split(" ")[0] in capsys.readouterr().out
    page = write_evaluation_report(tmp_path / "report.html", table).read_text(encoding="utf-8")
    assert FLOOR in page and value in page


def test_a_table_of_an_older_version_has_none(colours, toybox):
    table = evaluate({"a": colours}, ("knn",), toybox, floor=False)
    content = json.loads(table.to_json())
    del content["floor"]
    assert ResultTable.from_json(json.dumps(content)) == table
    assert FLOOR not in table.to_markdown()


def test_it_stands_at_every_size_of_a_curve(colours, toybox):
    curve = resolution_curve({"a": colours}, "depth", toybox, sizes=(16, 32))
    floor = curve.table().floor
    assert floor["depth@16/RMSE"] == floor["depth@32/RMSE"] == curve.floor["RMSE"]
    assert type(curve).from_json(curve.to_json()) == curve


def test_tables_of_other_data_have_no_common_one():
    one, other = (ResultTable([], {"a": {}}, {}, {"x/y": value, "x/z": 1.0}) for value in (1.0, 2.0))
    assert merge_tables({"one": one, "other": other}).floor == {"x/y": None, "x/z": 1.0}


def test_the_kitchen_s_floor_and_what_an_encoder_of_colours_is_worth(shared, colours):
    """The constant answer that the probes were held against from outside: 0.658 m."""
    data = open_rgbd_depth(shared / "data" / "rgbd_kitchen")
    floor = TASKS["depth"].floor(data)["RMSE"]
    assert floor == pytest.approx(0.658, abs=0.001)
    assert depth.run(FeatureBank(colours, size=(120, 160)), data)["RMSE"] < floor
