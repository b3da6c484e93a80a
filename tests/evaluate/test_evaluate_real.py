"""The readers and protocols on real data, where it is at hand."""

import pytest
import torch

from eyespot.data.sets import open_image_folder, open_mask_folder, open_rgbd_depth, open_rgbd_matching
from eyespot.evaluate import FeatureBank, evaluate
from eyespot.evaluate.protocols import correspondence, depth, segmentation


def test_kitchen_correspondences_look_alike(shared):
    """Colours at true correspondences agree far better than at shuffled ones."""
    data = open_rgbd_matching(shared / "data" / "rgbd_kitchen", limit=12)
    images = data.sources.read(0, len(data.sources), data.pairs[0].source_size)
    true, shuffled = [], []
    for pair in data.pairs:
        here, there = (
            images[index][:, points[:, 1].long().clamp(max=239), points[:, 0].long().clamp(max=319)]
            for index, points in ((pair.source, pair.source_points), (pair.target, pair.target_points))
        )
        true.append((here - there).abs().mean())
        shuffled.append((here - there.roll(7, 1)).abs().mean())
    assert torch.stack(true).mean() < 0.5 * torch.stack(shuffled).mean()


def test_kitchen_matching_by_colour_beats_chance(shared, colours):
    data = open_rgbd_matching(shared / "data" / "rgbd_kitchen", limit=12)
    assert correspondence.run(FeatureBank(colours, size=(120, 160)), data)["PCK@0.1"] > 0.1  # chance is about 0.03


def test_kitchen_depth_by_colour_is_sane(shared, colours):
    data = open_rgbd_depth(shared / "data" / "rgbd_kitchen")
    assert len(data.train.labels) == len(data.val.labels) == 25
    found = depth.run(FeatureBank(colours, size=(120, 160)), data)
    assert 0.2 < found["RMSE"] < 1.0 and 0.3 < found["delta1"] < 1.0


def test_camvid_by_colour_is_sane(shared, colours):
    data = open_mask_folder(shared / "data" / "camvid")
    assert (data.classes, data.ignore) == (11, 11)
    assert (len(data.train.labels), len(data.val.labels)) == (120, 51)
    assert 0.08 < segmentation.run(FeatureBank(colours, size=(120, 160)), data)["mIoU"] < 0.4


def test_caltech_layout(shared):
    data = open_image_folder(shared / "data" / "caltech101", limit=142)
    assert len(data.classes) == 71 and len(data.val.labels) == 142
    assert data.val.pictures.read(0, 2, (112, 112)).shape == (2, 3, 112, 112)


@pytest.mark.slow
def test_each_real_expert_leads_in_its_own_domain(shared):
    pytest.importorskip("onnxruntime")
    names = {
        "semantic": "semantic_mobilenetv2_in1k",
        "segmentation": "segmentation_deeplabv3_voc",
        "depth": "depth_fastdepth_nyu",
    }
    specs = {name: f"onnx/{shared / 'teachers' / stem}.onnx" for name, stem in names.items()}
    data = {
        "knn": shared / "data" / "caltech101",
        "segmentation": shared / "data" / "camvid",
        "depth": shared / "data" / "rgbd_kitchen",
    }
    table = evaluate(list(specs.values()), tuple(data), data, limit=150)
    best = {column.key: table.best(column) for column in table.columns}
    assert best["knn/accuracy"] == {specs["semantic"]}
    assert best["segmentation/mIoU"] == {specs["segmentation"]}
    assert best["depth/RMSE"] == {specs["depth"]}
