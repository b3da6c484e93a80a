import numpy as np
import pytest
import torch
from PIL import Image

from eyespot.data.loading.sampling import spread
from eyespot.data.sets import (
    FilePictures,
    LayoutError,
    TensorPictures,
    open_image_folder,
    open_mask_folder,
    open_rgbd_depth,
    open_rgbd_matching,
    read_rgbd,
)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path)


def grey(value, height=20, width=30):
    return np.full((height, width, 3), value, dtype=np.uint8)


@pytest.fixture
def classes(tmp_path):
    for split, count in (("train", 4), ("val", 2)):
        for name in ("cat", "dog"):
            for index in range(count):
                save(tmp_path / split / name / f"{index}.png", grey(50 if name == "cat" else 150))
    return tmp_path


def test_image_folder(classes):
    data = open_image_folder(classes)
    assert data.classes == ["cat", "dog"]
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4
    assert data.val.labels.tolist() == [0, 0, 1, 1]
    images = data.val.pictures.read(1, 3, (16, 16))
    assert images.shape == (2, 3, 16, 16)
    torch.testing.assert_close(images.mean((1, 2, 3)), torch.tensor([50 / 255, 150 / 255]))


def test_a_limit_is_spread_over_the_classes(classes):
    assert open_image_folder(classes, limit=2).train.labels.tolist() == [0, 1]
    assert spread(10, 3) == [0, 3, 6] and spread(3, 10) == [0, 1, 2] and spread(4, None) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="at least 1"):
        spread(4, 0)


def test_image_folder_layout_errors(classes):
    with pytest.raises(LayoutError, match=r"no folder .*nowhere.*expected FOLDER/train/CLASS"):
        open_image_folder(classes / "nowhere")
    (classes / "train" / "empty").mkdir()
    with pytest.raises(LayoutError, match=r"empty holds no pictures"):
        open_image_folder(classes)
    (classes / "train" / "empty").rmdir()
    save(classes / "val" / "cow" / "0.png", grey(1))
    with pytest.raises(ValueError, match="no training pictures for cow"):
        open_image_folder(classes)
    (classes / "flat" / "train").mkdir(parents=True)
    with pytest.raises(LayoutError, match="no class folders"):
        open_image_folder(classes / "flat")


def test_crop_keeps_proportions_and_squeeze_does_not(tmp_path):
    picture = grey(0, 64, 128)
    picture[:, :32] = 255
    save(tmp_path / "a.png", picture)
    squeezed = FilePictures([tmp_path / "a.png"]).read(0, 1, (32, 32))
    assert squeezed[0, 0, 16, 3] == 1 and squeezed[0, 0, 16, 28] == 0
    assert squeezed.mean() == pytest.approx(0.25, abs=0.01)
    assert FilePictures([tmp_path / "a.png"], crop=True).read(0, 1, (32, 32)).max() < 0.1


def test_crop_is_the_inner_seven_eighths(tmp_path):
    ramp = np.tile(np.arange(256, dtype=np.uint8)[:, None, None], (1, 256, 3))
    save(tmp_path / "ramp.png", ramp)
    rows = FilePictures([tmp_path / "ramp.png"], crop=True).read(0, 1, (224, 224))[0, 0, :, 0] * 255
    torch.testing.assert_close(rows, torch.arange(16.0, 240.0))


def test_tensor_pictures_refuse_other_shapes():
    with pytest.raises(ValueError, match="N, 3, H, W"):
        TensorPictures(torch.zeros(2, 1, 4, 4))


@pytest.fixture
def masks(tmp_path):
    for split in ("train", "val"):
        for index in range(3):
            save(tmp_path / split / "images" / f"{index}.jpg", grey(90))
            mask = np.full((20, 30), index, dtype=np.uint8)
            mask[0] = 255
            save(tmp_path / split / "annotations" / f"{index}.png", mask)
    return tmp_path


def test_mask_folder(masks):
    data = open_mask_folder(masks)
    assert data.classes == 3 and data.ignore == 255
    assert [int(label[1, 0]) for label in data.val.labels] == [0, 1, 2]
    assert len(open_mask_folder(masks, limit=2).train.labels) == 2
    assert open_mask_folder(masks, ignore=2).classes == 256


def test_palette_masks_are_read_as_indices(masks):
    path = masks / "train" / "annotations" / "0.png"
    picture = Image.fromarray(np.full((20, 30), 1, dtype=np.uint8), mode="L").convert("P")
    picture.putpalette([0, 0, 0, 200, 100, 50])
    picture.save(path)
    assert open_mask_folder(masks).train.labels[0].unique().tolist() == [1]


def test_a_folder_called_camvid_ignores_label_11(masks):
    masks = masks.rename(masks.with_name("CamVid"))
    assert open_mask_folder(masks).ignore == 11


def test_mask_folder_errors(masks):
    annotations = masks / "val" / "annotations"
    save(annotations / "1.png", np.zeros((30, 20), dtype=np.uint8))
    with pytest.raises(ValueError, match="20x30, its picture 30x20"):
        open_mask_folder(masks)
    save(annotations / "1.png", grey(0))
    with pytest.raises(ValueError, match="one class number per pixel"):
        open_mask_folder(masks)
    (annotations / "1.png").unlink()
    with pytest.raises(LayoutError, match=r"no mask .*1\.png"):
        open_mask_folder(masks)
    with pytest.raises(LayoutError, match=r"annotations/NAME\.png"):
        open_mask_folder(masks / "train")


@pytest.fixture
def frames(tmp_path):
    """A wall two metres ahead, seen by a camera that moves 5 cm to the right from frame to frame."""
    np.savetxt(tmp_path / "camera-intrinsics.txt", [[40, 0, 16], [0, 40, 12], [0, 0, 1]])
    for index in range(6):
        save(tmp_path / f"frame-{index:03d}.color.png", grey(40 * index, 24, 32))
        depth = np.full((24, 32), 2000, dtype=np.uint16)
        depth[0, 0], depth[0, 1] = 0, 65535
        save(tmp_path / f"frame-{index:03d}.depth.png", depth)
        pose = np.eye(4)
        pose[0, 3] = 0.05 * index
        np.savetxt(tmp_path / f"frame-{index:03d}.pose.txt", pose)
    return tmp_path


def test_rgbd_depth_is_split_into_contiguous_halves(frames):
    data = open_rgbd_depth(frames)
    assert [len(half.pictures) for half in (data.train, data.val)] == [3, 3]
    first = data.val.pictures.read(0, 1, (24, 32))[0, 0, 5, 5]
    assert first == pytest.approx(120 / 255)
    label = data.train.labels[0]
    assert label[0, 0] == 0 and label[0, 1] == 0 and label[5, 5] == 2
    assert len(open_rgbd_depth(frames, limit=2).train.labels) == 2


def test_rgbd_matching_follows_the_camera(frames):
    data = open_rgbd_matching(frames, gaps=(1, 2), points=10)
    assert [(pair.source, pair.target) for pair in data.pairs][:3] == [(0, 1), (0, 2), (1, 2)]
    assert len(data.pairs) == 9
    assert {(pair.source_size, pair.target_size, pair.reach) for pair in data.pairs} == {((24, 32), (24, 32), 32)}
    pair = data.pairs[1]
    torch.testing.assert_close(pair.target_points, pair.source_points - torch.tensor([0.1 * 40 / 2, 0]).double())
    again = open_rgbd_matching(frames, gaps=(1, 2), points=10)
    assert torch.equal(again.pairs[1].source_points, pair.source_points)
    other = open_rgbd_matching(frames, gaps=(1, 2), points=10, seed=1)
    assert not torch.equal(other.pairs[1].source_points, pair.source_points)


def test_rgbd_pairs_without_overlap_are_left_out(frames):
    with pytest.raises(ValueError, match="share 99%"):
        open_rgbd_matching(frames, gaps=(3,), overlap=0.99)


def test_rgbd_layout_errors(frames):
    with pytest.raises(LayoutError, match="camera to world"):
        read_rgbd(frames / "nowhere")
    (frames / "frame-002.pose.txt").write_text("1 0 0\n0 1 0\n")
    with pytest.raises(ValueError, match="4x4"):
        read_rgbd(frames)
    (frames / "frame-002.pose.txt").unlink()
    with pytest.raises(LayoutError, match=r"frame-002\.pose\.txt"):
        read_rgbd(frames)
    save(frames / "frame-001.depth.png", np.zeros((12, 16), dtype=np.uint16))
    with pytest.raises(ValueError, match="register"):
        read_rgbd(frames)
