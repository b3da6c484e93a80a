import json

import numpy as np
import pytest
import torch

from eyespot.data.labelled.edges import class_boundaries, surface_boundaries
from eyespot.data.labelled.geometry import depth_to_normals
from eyespot.data.labelled.layout import LayoutError
from eyespot.data.sets import open_multitask
from eyespot.data.sets.pascal import NORMAL_CLASSES, part_class
from eyespot.data.sources.decode import PictureError
from eyespot.data.toybox import KEYPOINTS, render
from eyespot.dense_tasks import IGNORE
from multitask_replicas import (
    SIZE,
    halved,
    noise,
    save,
    write_camvid,
    write_coco,
    write_kitchen,
    write_nyud,
    write_pascal,
)


def check(data):
    """What holds for every set: types and shapes as the contract says."""
    for index in range(len(data)):
        sample = data.read(index)
        assert sample.image.dtype == torch.uint8 and sample.image.shape[0] == 3
        assert list(sample.maps) == list(data.tasks)
        for name, task in data.tasks.items():
            label = sample.maps[name]
            assert tuple(label.shape[-2:]) == sample.size, name
            if task.kind in ("classes", "saliency", "boundary"):
                assert label.dtype == torch.uint8 and label.ndim == 2
                known = label[label != IGNORE]
                assert not len(known) or known.max() < max(2, task.channels)
            elif task.kind == "normals":
                length = label.norm(dim=0)
                assert label.dtype == torch.float32 and bool(((length == 0) | ((length - 1).abs() < 1e-5)).all())
            elif task.kind == "depth":
                assert label.dtype == torch.float32 and label.ndim == 2 and bool((label >= 0).all())
            else:
                assert label.dtype == torch.float32 and len(label) == task.channels
                assert label.min() >= 0 and label.max() <= 1


@pytest.mark.parametrize("png", [False, True])
def test_nyud(tmp_path, png):
    data = open_multitask(f"nyud:{write_nyud(tmp_path, png)}", "train")
    assert len(data) == 3 and data.name == f"nyud:{tmp_path}"
    assert {name: (task.kind, task.channels) for name, task in data.tasks.items()} == {
        "segmentation": ("classes", 40),
        "depth": ("depth", 1),
        "normals": ("normals", 3),
        "boundary": ("boundary", 1),
    }
    assert data.tasks["boundary"].max_distance == 0.011 and data.tasks["segmentation"].names[0] == "wall"
    check(data)
    labels = data.read(1).maps
    assert np.array_equal(labels["segmentation"], halved(IGNORE, 2))  # 3 in the file is class 2
    assert np.array_equal(labels["depth"], halved(2.5, 0))
    assert np.array_equal(labels["boundary"], halved(0, 1))
    assert not labels["normals"][:, :, :8].any()
    torch.testing.assert_close(labels["normals"][:, 5, 12], torch.tensor([0.0, 0, -1]), atol=6e-3, rtol=0)
    val = open_multitask(data.name, "val")
    assert len(val) == 1 and "0002" in val.picture_name(0)
    assert len(open_multitask(data.name, "train", limit=2)) == 2


def test_what_is_missing_is_named_with_the_layout_and_a_source(tmp_path):
    with pytest.raises(LayoutError, match=r"gt_sets/train\.txt; expected .*gt_sets.* Get NYUD-v2 .* from the README"):
        open_multitask(f"nyud:{tmp_path}", "train")
    write_nyud(tmp_path)
    (tmp_path / "normals" / "0003.npy").unlink()
    with pytest.raises(LayoutError, match=r"no file .*normals/0003\.npy"):
        open_multitask(f"nyud:{tmp_path}", "train")
    # Tasks that are not asked for need no files.
    few = open_multitask(f"nyud:{tmp_path}?tasks=depth+boundary", "train")
    assert list(few.read(1).maps) == ["depth", "boundary"]
    with pytest.raises(LayoutError, match=r"Context/val\.txt"):
        open_multitask(f"pascal_context:{tmp_path}", "val")


def test_broken_files_are_broken_pictures(tmp_path):
    write_nyud(tmp_path)
    data = open_multitask(f"nyud:{tmp_path}", "train")
    save(tmp_path / "depth" / "0001.npy", np.ones((4, 4)), np.float32)
    with pytest.raises(PictureError, match=r"0001\.jpg: its label for depth is 4x4, the picture 16x12"):
        data.read(0)
    (tmp_path / "normals" / "0003.npy").write_bytes(b"torn")
    with pytest.raises(PictureError, match=r"0003\.jpg: its label for normals cannot be read"):
        data.read(1)
    save(tmp_path / "segmentation" / "0007.png", halved(1, 41))
    with pytest.raises(PictureError, match=r"0007\.jpg: its label for segmentation .*holds 41"):
        data.read(2)
    (tmp_path / "images" / "0007.jpg").write_bytes(b"no picture")
    with pytest.raises(PictureError, match=r"0007\.jpg"):
        data.read(2)


def test_pascal_context(tmp_path):
    data = open_multitask(f"pascal_context:{write_pascal(tmp_path)}", "train")
    assert {name: task.channels for name, task in data.tasks.items()} == {
        "segmentation": 21,
        "parts": 7,
        "saliency": 2,
        "normals": 3,
        "boundary": 1,
    }
    assert data.tasks["parts"].weight == 2 and data.tasks["boundary"].max_distance == 0.0075
    check(data)
    labels = data.read(0).maps
    assert np.array_equal(labels["segmentation"], halved(15, 255))
    assert np.array_equal(labels["saliency"], halved(0, 1))
    parts = labels["parts"]
    assert parts[0].tolist() == [1] * 8 + [2] * 4 + [0] * 4  # the cat's head is nobody's part
    assert parts[4].tolist() == [3] * 4 + [4] * 4 + [2] * 4 + [0] * 4
    assert parts[6, 8] == 2 and parts[11].tolist() == [0] * 8 + [6] * 4 + [0] * 4
    assert bool((data.read(1).maps["parts"] == IGNORE).all())  # nobody there
    assert (data.read(2).maps["parts"] == 6).any()
    normals = labels["normals"]
    assert not normals[:, :, 8:].any()
    torch.testing.assert_close(normals[:, 3, 3], torch.tensor([0.0, 0, -1]), atol=6e-3, rtol=0)
    expected = class_boundaries(torch.from_numpy(halved(284, 455)), ignored=None)
    assert torch.equal(labels["boundary"], expected) and expected[1:-1].sum(1).tolist() == [1] * 10
    assert len(open_multitask(f"pascal_context:{tmp_path}", "val")) == 1


def test_parts_of_persons():
    found = {name: part_class(name) for name in ("hair", "lear", "rebrow", "leye", "torso", "neck", "ruarm", "lhand")}
    assert found == {
        "hair": 1,
        "lear": 1,
        "rebrow": 1,
        "leye": 1,
        "torso": 2,
        "neck": 2,
        "ruarm": 3,
        "lhand": 4,
    }
    assert [part_class(name) for name in ("llarm", "luleg", "rlleg", "rfoot", "mouth", "nose")] == [4, 5, 6, 6, 1, 1]
    with pytest.raises(ValueError, match="'tail' is no part of a person"):
        part_class("tail")


def test_the_classes_with_normals_are_in_order():
    assert len(set(NORMAL_CLASSES)) == len(NORMAL_CLASSES) and list(NORMAL_CLASSES) == sorted(NORMAL_CLASSES)
    # Of the alphabetical list: bed, bottle, chair, person, sofa, tvmonitor, wall; but no grass, sky, tree.
    assert {18, 34, 72, 284, 368, 427, 440} <= set(NORMAL_CLASSES) and not {187, 360, 420, 431} & set(NORMAL_CLASSES)


def test_camvid(tmp_path):
    data = open_multitask(f"camvid:{write_camvid(tmp_path)}", "train")
    assert (len(data), data.tasks["segmentation"].channels, data.tasks["segmentation"].names[3]) == (4, 11, "road")
    check(data)
    labels = data.read(2).maps
    assert np.array_equal(labels["segmentation"], halved(2, 10))
    assert torch.equal(labels["boundary"], class_boundaries(labels["segmentation"])) and labels["boundary"].any()
    void = data.read(3).maps
    assert np.array_equal(void["segmentation"], halved(3, IGNORE)) and not (void["boundary"] == 1).any()


def test_coco(tmp_path):
    write_coco(tmp_path)
    data = open_multitask(f"coco:{tmp_path}", "val")
    check(data)
    labels = data.read(0).maps
    assert labels["keypoints"].shape == (17, *SIZE)
    assert labels["keypoints"].amax((1, 2)).tolist() == [1, 1] + [0] * 15  # hidden ones count, missing ones do not
    assert labels["keypoints"][0, 4, 3] == 1 and labels["keypoints"][1, 1, 9] == 1
    assert np.array_equal(labels["saliency"], halved(0, IGNORE))
    assert np.array_equal(data.read(1).maps["saliency"], halved(0, 1))
    assert not data.read(1).maps["keypoints"].any()
    assert data.tasks["keypoints"].names[5] == "left_shoulder"
    (tmp_path / "val2017" / "annotations.json").write_text(json.dumps({"classes": ["a"], "images": []}))
    with pytest.raises(ValueError, match="81 classes with background, not 1"):
        open_multitask(f"coco:{tmp_path}", "val")


def test_kitchen(tmp_path):
    train, val = (open_multitask(f"kitchen:{write_kitchen(tmp_path)}", split) for split in ("train", "val"))
    assert [len(train), len(val)] == [2, 3]
    assert [train.picture_name(1)[-11:], val.picture_name(0)[-11:]] == ["1.color.jpg", "2.color.jpg"]
    check(train)
    labels = train.read(1).maps
    assert labels["depth"][0, :4].tolist() == [0, 0, 0, pytest.approx(2.01)]
    intrinsics = torch.tensor([[40.0, 0, 16], [0, 40, 12], [0, 0, 1]], dtype=torch.float64)
    assert torch.equal(labels["normals"], depth_to_normals(labels["depth"], intrinsics))
    assert torch.equal(labels["boundary"], surface_boundaries(labels["depth"], labels["normals"]))
    assert (labels["boundary"] == 1).any() and labels["boundary"][0, :3].tolist() == [IGNORE] * 3
    single = tmp_path / "one"
    single.mkdir()
    with pytest.raises(ValueError, match="one frame cannot be split"):
        open_multitask(f"kitchen:{write_kitchen(single, 1)}", "train")


def test_toybox():
    data = open_multitask("toybox:20@32", "train")
    assert len(data) == 20 and len(open_multitask("toybox:20@32", "val")) == 10
    check(data)
    scenes = render([17], 32)
    sample = data.read(17)
    assert torch.equal(sample.image, (scenes.images[0] * 255).round().to(torch.uint8))
    assert torch.equal(sample.maps["depth"], scenes.depth[0])
    assert torch.equal(sample.maps["segmentation"].long(), scenes.semantic[0])
    assert torch.equal(sample.maps["saliency"].bool(), scenes.saliency[0])
    torch.testing.assert_close(sample.maps["normals"], scenes.normals[0], atol=1e-3, rtol=0)
    lines_ = sample.maps["boundary"].bool()
    assert lines_.any() and not (lines_ & ~scenes.boundaries[0]).any()
    peaks = int((sample.maps["keypoints"] == 1).sum())
    assert 0 < peaks <= int(scenes.keypoints_visible[0].sum()) <= KEYPOINTS
    x, y = scenes.keypoints[0][scenes.keypoints_visible[0]][0].tolist()
    assert sample.maps["keypoints"][scenes.semantic[0, int(y), int(x)], int(y), int(x)] == 1
    val = open_multitask("toybox:20@32", "val")
    assert val.picture_name(0) != data.picture_name(0) and val.fingerprint() != data.fingerprint()
    assert len(open_multitask("toybox:20@32", "train", limit=3)) == 3 and len(open_multitask("toybox", "train")) == 1000


def test_a_choice_of_tasks_keeps_the_sets_order():
    data = open_multitask("toybox:4@16?tasks=depth+segmentation", "train")
    assert list(data.tasks) == list(data.read(0).maps) == ["segmentation", "depth"]
    assert list(open_multitask("toybox:4@16?tasks=depth,boundary", "train").tasks) == ["boundary", "depth"]
    assert data.name == "toybox:4@16?tasks=depth+segmentation"


def test_sizes(tmp_path):
    write_camvid(tmp_path)
    full, small = (open_multitask(f"camvid:{tmp_path}{options}", "train") for options in ("", "?height=6&width=8"))
    check(small)
    one, other = full.read(1), small.read(1)
    assert other.size == (6, 8) and torch.equal(other.maps["segmentation"], one.maps["segmentation"][1::2, 1::2])
    mean = one.image.float().view(3, 6, 2, 8, 2).mean((2, 4))
    assert (other.image[:, 1:-1, 1:-1] - mean[:, 1:-1, 1:-1]).abs().mean() < 25  # antialiased, not sampled
    line = other.maps["boundary"]
    assert line[1:-1].sum(1).tolist() == [1] * 4
    assert small.fingerprint() != full.fingerprint() and len(small) == len(full) == 4
    toys = [open_multitask(f"toybox:4@64{options}", "train") for options in ("", "?height=16&width=16")]
    big, little = (toy.read(2).maps for toy in toys)
    assert set(little["depth"].flatten().tolist()) <= set(big["depth"].flatten().tolist())
    assert (little["keypoints"] == 1).any() and little["boundary"].any()
    check(toys[1])


def test_a_thin_line_survives_any_shrinking(tmp_path):
    for height, width in ((5, 7), (3, 16), (12, 5)):
        data = open_multitask(f"camvid:{write_camvid(tmp_path)}?height={height}&width={width}", "train")
        rows = (data.read(1).maps["boundary"] == 1).any(1)
        assert bool(rows[1:-1].all()), (height, width)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("camvit:/data", r"names no multi-task data.*Did you mean 'camvid'"),
        ("camvid", "write NAME:FOLDER"),
        ("toybox:4@16?tasks=depht", "no task 'depht'; did you mean 'depth'"),
        ("toybox:4@16?heigth=4", "no option 'heigth'; did you mean 'height'"),
        ("toybox:4@16?height=4", "height and width together"),
        ("toybox:many", r"toybox\[:COUNT\[@SIZE\]\]"),
        ("toybox:4@4", "at least 8 pixels"),
    ],
)
def test_wrong_specs_say_what_would_be_right(spec, message):
    with pytest.raises(ValueError, match=message):
        open_multitask(spec, "train")


def test_a_wrong_split_is_refused():
    with pytest.raises(ValueError, match="train or val, not 'test'"):
        open_multitask("toybox:4@16", "test")


def test_fingerprints_tell_data_tasks_and_splits_apart(tmp_path):
    write_camvid(tmp_path)
    first = open_multitask(f"camvid:{tmp_path}", "train")
    others = [
        open_multitask(f"camvid:{tmp_path}", "val"),
        open_multitask(f"camvid:{tmp_path}?tasks=boundary", "train"),
        open_multitask(f"camvid:{tmp_path}?height=6&width=8", "train"),
        open_multitask(f"camvid:{tmp_path}", "train", limit=2),
    ]
    assert len({data.fingerprint() for data in [first, *others]}) == 5
    save(tmp_path / "train" / "annotations" / "0.png", noise(3, *SIZE, high=11))
    assert open_multitask(f"camvid:{tmp_path}", "train").fingerprint() != first.name
    assert open_multitask(f"camvid:{tmp_path}", "val").fingerprint() == others[0].fingerprint()


def test_real_data(shared):
    data = shared / "data"
    camvid = open_multitask(f"camvid:{data / 'camvid'}", "val", limit=3)
    check(camvid)
    share = torch.stack([(camvid.read(i).maps["boundary"] == 1).float().mean() for i in range(3)])
    assert share.min() > 0.01 and share.max() < 0.12
    assert [len(open_multitask(f"camvid:{data / 'camvid'}", split)) for split in ("train", "val")] == [120, 51]
    kitchen = open_multitask(f"kitchen:{data / 'rgbd_kitchen'}", "train", limit=3)
    check(kitchen)
    labels = kitchen.read(0).maps
    assert 0.5 < labels["depth"][labels["depth"] > 0].median() < 5
    assert 0.005 < (labels["boundary"] == 1).float().mean() < 0.12
    assert [len(open_multitask(f"kitchen:{data / 'rgbd_kitchen'}", split)) for split in ("train", "val")] == [25, 25]
    coco = open_multitask(f"coco:{data / 'coco'}", "train", limit=5)
    check(coco)
    assert any((coco.read(index).maps["keypoints"] == 1).any() for index in range(5))
    assert any((coco.read(index).maps["saliency"] == 1).any() for index in range(5))
