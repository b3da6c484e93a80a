import math

import pytest
import torch
from report_toys import Blocks

from eyespot.data.labelled.base import DensePictures, SegmentationData, TensorPictures
from eyespot.data.sets import ToyboxConfig, ToyboxData
from eyespot.evaluate.extraction import FeatureBank
from eyespot.evaluate.protocols import depth, normals, segmentation
from eyespot.evaluate.protocols.segmentation import MeanIoU
from eyespot.report.exhibits.dense import Depth, Normals, Segmentation

VAL = 4


@pytest.fixture(scope="module")
def toybox():
    return ToyboxData(ToyboxConfig(train=12, val=VAL, pairs=1, size=32))


@pytest.fixture(scope="module")
def bank():
    return FeatureBank(Blocks(8), 32)


def test_the_shown_classes_are_those_that_were_measured(toybox, bank):
    data = toybox.segmentation()
    *maps, right = Segmentation(data, VAL, 3).look(bank)
    metric = MeanIoU(data.classes, data.ignore)
    for found, truth in zip(maps, data.val.labels, strict=True):
        metric.update(found, truth)
    assert metric.compute() == segmentation.run(bank, data, 3)["mIoU"]
    by_hand = [float((found == truth).double().mean()) for found, truth in zip(maps, data.val.labels, strict=True)]
    assert right.tolist() == pytest.approx(by_hand)


def test_the_shown_depth_is_what_was_measured(toybox, bank):
    data = toybox.depth()
    *maps, errors = Depth(data, VAL, 3).look(bank)
    assert float(errors.mean()) == pytest.approx(depth.run(bank, data, 3)["RMSE"])
    assert all(one.shape == (32, 32) for one in maps)


def test_the_shown_normals_are_what_was_measured(toybox, bank):
    data = toybox.normals()
    *maps, angles = Normals(data, VAL, 3).look(bank)
    assert float(angles.mean()) == pytest.approx(normals.run(bank, data, 3)["mean"], rel=1e-4)
    assert all(torch.allclose(one.norm(dim=0), torch.ones(32, 32), atol=1e-5) for one in maps)


@pytest.mark.parametrize(
    ("make", "kind", "note"),
    [(Segmentation, "segmentation", "% right"), (Depth, "depth", "RMSE"), (Normals, "normals", "° off")],
)
def test_grids_show_picture_truth_and_models(toybox, bank, make, kind, note):
    exhibit = make(getattr(toybox, kind)(), 2, 0)
    (grid,) = exhibit.draw({"a": exhibit.look(bank)})
    assert exhibit.name == kind and list(grid.columns) == ["picture", "truth", "a"]
    tiles = [tile for column in grid.columns.values() for tile in column]
    assert all(tile.shape == (3, 32, 32) and tile.dtype == torch.uint8 for tile in tiles)
    assert len(grid.notes["a"]) == 2 and all(note in text for text in grid.notes["a"])
    assert "quick linear probe on frozen patches." in grid.caption
    assert (grid.scale is not None) == (kind == "depth")


def test_the_published_schedule_is_drawn_by_the_quick_probe_which_is_said(toybox):
    exhibit = Depth(toybox.depth(), options={"schedule": "published", "steps": 7})
    assert "quick linear probe on frozen patches (not that of the published schedule" in exhibit._origin


def flat(labels, ignore=255):
    pictures = TensorPictures(torch.full((1, 3, 8, 8), 0.5))
    split = DensePictures(pictures, torch.tensor([labels]))
    return SegmentationData(split, split, 3, ignore)


def test_equal_classes_have_equal_colours_and_borders_are_dark():
    truth = [[0] * 4 + [2] * 4] * 7 + [[255] * 8]
    exhibit = Segmentation(flat(truth), 1)
    predicted = torch.tensor(truth).masked_fill(torch.tensor(truth) == 255, 1)
    (grid,) = exhibit.draw({"a": [predicted, torch.tensor([1.0])]})
    true, found = grid.columns["truth"][0], grid.columns["a"][0]
    assert torch.equal(true[:, :6, :3], found[:, :6, :3]) and torch.equal(true[:, 0, 0], true[:, 5, 2])
    assert not torch.equal(true[:, 0, 0], true[:, 0, 7])
    assert bool((true[:, :7, 3] == 26).all())  # 0.1 of 255, between the classes
    assert len(set(true[:, 7, 0].tolist())) == 1  # grey: not labelled
    assert len(set(found[:, 7, 0].tolist())) == 3  # but predicted


def test_depth_that_was_not_measured_is_grey_and_has_no_score(toybox, bank):
    data = toybox.depth()
    empty = DensePictures(data.val.pictures, torch.zeros_like(data.val.labels))
    exhibit = Depth(depth.DepthData(data.train, empty, data.low, data.high), 1, 0)
    findings = exhibit.look(bank)
    assert math.isnan(findings[-1])
    (grid,) = exhibit.draw({"a": findings})
    assert grid.notes["a"] == ["–"]
    assert len(grid.columns["truth"][0].unique()) == 1


def test_large_maps_are_kept_at_the_size_of_the_page(bank):
    labels = torch.zeros(1, 500, 400, dtype=torch.int64)
    labels[:, 250:] = 1
    split = DensePictures(TensorPictures(torch.rand(1, 3, 64, 48)), labels)
    exhibit = Segmentation(SegmentationData(split, split, 2), 1, 0)
    findings = exhibit.look(bank)
    assert findings[0].shape == (336, 269)
    (grid,) = exhibit.draw({"a": findings})
    assert grid.columns["truth"][0].shape == (3, 64, 48)


def test_what_depends_on_the_probe_is_in_the_setting(toybox):
    """And another one than that of versions before, whose kept predictions are of other probes."""
    data = toybox.depth()
    settings = [Depth(data, 2, 0).setting, Depth(data, 2, 1).setting, Depth(data, 3, 0).setting]
    assert len({str(setting) for setting in settings}) == 3
    assert all("held-out" in setting["probe"] for setting in settings)
