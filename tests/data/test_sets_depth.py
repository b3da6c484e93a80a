import numpy as np
import pytest
import torch

from eyespot.data.sets import (
    LayoutError,
    open_depth_folder,
    open_normals_folder,
    open_nyu,
    open_nyu_normals,
    open_rgbd_depth,
    open_rgbd_normals,
)
from eyespot.data.sets.nyu import INTRINSICS
from replicas import depth, nothing_decoded, photo, text


def wall(height=480, width=640):
    """Two metres away everywhere, but not measured at the top left, too far beside it."""
    millimetres = np.full((height, width), 2000)
    millimetres[46, 42], millimetres[46, 43] = 0, 10500
    return millimetres


def write_nyu(folder, train_base, test_base, train_list, test_list):
    trained = [f"kitchen_0028b/{{}}_{number:05d}" for number in (45, 7, 9)]
    tested = [f"bathroom/{{}}_{number:05d}" for number in (45, 46)]
    for base, names in ((train_base, trained), (test_base, tested)):
        for name in names:
            photo(folder / base / f"{name.format('rgb')}.jpg", 90, 480, 640)
            depth(folder / base / f"{name.format('sync_depth')}.png", wall())
    for file, names, slash in ((train_list, trained, "/"), (test_list, tested, "")):
        lines = [f"{slash}{n.format('rgb')}.jpg {slash}{n.format('sync_depth')}.png 518.8579" for n in names]
        text(folder / file, *lines)
    return folder


BTS = ("sync", "official_splits/test", "nyudepthv2_train_files_with_gt.txt", "nyudepthv2_test_files_with_gt.txt")
BINSFORMER = (".", ".", "nyu_train.txt", "nyu_test.txt")


@pytest.mark.parametrize("places", [BTS, BINSFORMER])
def test_nyu_is_in_metres_and_the_test_is_cropped(tmp_path, places):
    write_nyu(tmp_path, *places)
    with nothing_decoded():
        data = open_nyu(tmp_path)
    assert (data.low, data.high, data.train_box) == (1e-3, 10.0, (43, 45, 608, 472))
    assert [path.name for path in data.train.pictures.paths] == ["rgb_00045.jpg", "rgb_00007.jpg", "rgb_00009.jpg"]
    train, test = data.train.labels[1], data.val.labels[1]
    assert train.shape == test.shape == (480, 640) and train.dtype == torch.float32
    assert train[0, 0] == 2 and train[46, 42] == 0 and train[46, 43] == 0
    measured = torch.zeros(480, 640, dtype=torch.bool)
    measured[45:471, 41:601] = True
    measured[46, 42] = measured[46, 43] = False
    assert torch.equal(test > 0, measured) and test.unique().tolist() == [0, 2]
    whole = open_nyu(tmp_path, crop=False)
    assert whole.val.labels[0][0, 0] == 2 and whole.train_box is None
    assert [len(part.labels) for part in (open_nyu(tmp_path, limit=2).train, open_nyu(tmp_path, limit=1).val)] == [2, 1]


def test_nyu_errors(tmp_path):
    with pytest.raises(LayoutError, match=r"nyudepthv2_train_files_with_gt\.txt or .*nyu_train\.txt; expected .*BTS"):
        open_nyu(tmp_path)
    write_nyu(tmp_path, *BTS)
    (tmp_path / "sync" / "kitchen_0028b" / "sync_depth_00007.png").unlink()
    with pytest.raises(LayoutError, match=r"no depth map .*sync_depth_00007\.png for rgb_00007\.jpg"):
        open_nyu(tmp_path)
    depth(tmp_path / "sync" / "kitchen_0028b" / "sync_depth_00007.png", wall())
    photo(tmp_path / "official_splits" / "test" / "bathroom" / "rgb_00045.jpg", 1, 240, 320)
    depth(tmp_path / "official_splits" / "test" / "bathroom" / "sync_depth_00045.png", wall(240, 320))
    with pytest.raises(ValueError, match="Eigen crop is for 480x640, not 240x320; use crop=false"):
        open_nyu(tmp_path).val.labels[0]
    assert open_nyu(tmp_path, crop=False).val.labels[0].shape == (240, 320)
    text(tmp_path / "nyudepthv2_train_files_with_gt.txt", "only_a_picture.jpg")
    with pytest.raises(ValueError, match="must name a picture and a depth map"):
        open_nyu(tmp_path)


def test_nyu_normals(tmp_path):
    write_nyu(tmp_path, *BTS)
    with nothing_decoded():
        data = open_nyu_normals(tmp_path)
    train, test = data.train.labels[0], data.val.labels[0]
    assert train.shape == (3, 480, 640)
    torch.testing.assert_close(train[:, 200, 300], torch.tensor([0.0, 0.0, -1.0]), atol=2e-3, rtol=0)
    torch.testing.assert_close(train[:, 0, 300], torch.tensor([0.0, 0.0, -1.0]), atol=2e-3, rtol=0)
    assert not test[:, :45].any() and not test[:, 471:].any() and not test[..., :41].any() and not test[..., 601:].any()
    assert bool(test[2, 60:471, 60:601].lt(-0.99).all())
    assert INTRINSICS[0, 2] == pytest.approx(325.082449)  # the toolbox's 325.58 counts the first pixel's centre as 1


@pytest.fixture
def folders(tmp_path):
    for split in ("train", "val"):
        for number in range(3):
            photo(tmp_path / split / "images" / f"{number}.jpg", 90, 2, 3)
            depth(tmp_path / split / "depth" / f"{number}.png", [[1000, 0, 9999], [10001, 65535, number]])
    return tmp_path


def test_depth_folder_of_integers(folders):
    data = open_depth_folder(folders)
    expected = torch.tensor([[1.0, 0, 9.999], [0, 0, 0.002]])
    torch.testing.assert_close(data.val.labels[2], expected, rtol=1e-6, atol=0)
    assert (data.low, data.high) == (1e-3, 10.0)
    coarse = open_depth_folder(folders, scale=0.01, high=700)
    torch.testing.assert_close(coarse.val.labels[2], torch.tensor([[10.0, 0, 99.99], [100.01, 0, 0.02]]))
    assert coarse.high == 700
    assert [path.stem for path in open_depth_folder(folders, limit=2).train.pictures.paths] == ["0", "1"]
    assert data.train.labels.fingerprint() != coarse.train.labels.fingerprint()


def test_depth_folder_of_floats(folders):
    for split in ("train", "val"):
        (folders / split / "depth" / "1.png").unlink()
        np.save(folders / split / "depth" / "1.npy", np.array([[1.5, np.nan, np.inf], [-2, 0, 11]], dtype=np.float64))
    label = open_depth_folder(folders).train.labels[1]
    assert label.tolist() == [[1.5, 0, 0], [0, 0, 0]] and label.dtype == torch.float32
    assert open_depth_folder(folders, high=20).train.labels[1][1, 2] == 11


def test_depth_folder_errors(folders):
    with pytest.raises(LayoutError, match=r"no folder .*train/images; expected FOLDER/\{train,val\}/images"):
        open_depth_folder(folders / "train")
    depth(folders / "train" / "depth" / "0.png", [[1000, 0]])
    with pytest.raises(ValueError, match="is 2x1, its picture 3x2"):
        open_depth_folder(folders).train.labels[0]
    np.save(folders / "train" / "depth" / "2.npy", np.zeros((2, 3, 2)))
    with pytest.raises(ValueError, match="single channel"):
        open_depth_folder(folders).train.labels[2]
    (folders / "val" / "depth" / "2.png").unlink()
    with pytest.raises(LayoutError, match=r"no depth map .*2\.png for 2\.jpg"):
        open_depth_folder(folders)


def test_normals_folder_takes_the_camera_from_an_option_or_a_file(tmp_path):
    for split in ("train", "val"):
        photo(tmp_path / split / "images" / "0.jpg", 90, 20, 30)
        # 1/z grows with x: a wall that leaves to the left. plane: z = 2 - x, at z = 2/(1 + (u - 15)/40).
        columns = (np.arange(30) + 0.5 - 15) / 40
        depth(tmp_path / split / "depth" / "0.png", np.tile(np.round(20000 / (1 + columns)), (20, 1)))
    with pytest.raises(LayoutError, match=r"no file .*camera-intrinsics\.txt"):
        open_normals_folder(tmp_path)
    options = {"scale": 1e-4, "intrinsics": (40.0, 40.0, 15.0, 10.0)}
    with nothing_decoded():
        data = open_normals_folder(tmp_path, **options)
    expected = torch.tensor([-1.0, 0.0, -1.0])[:, None, None].expand(3, 16, 26) / 2**0.5
    torch.testing.assert_close(data.val.labels[0][:, 2:18, 2:28], expected, atol=5e-3, rtol=0)
    np.savetxt(tmp_path / "camera-intrinsics.txt", [[40, 0, 15], [0, 40, 10], [0, 0, 1]])
    again = open_normals_folder(tmp_path, scale=1e-4)
    assert torch.equal(again.val.labels[0], data.val.labels[0])
    assert again.val.labels.fingerprint() == data.val.labels.fingerprint()
    with pytest.raises(ValueError, match="fx,fy,cx,cy"):
        open_normals_folder(tmp_path, intrinsics=(1.0, 2.0))


def test_rgbd_depth_and_normals_are_read_when_looked_at(shared):
    kitchen = shared / "data" / "rgbd_kitchen"
    with nothing_decoded():
        metres, normals = open_rgbd_depth(kitchen, limit=2), open_rgbd_normals(kitchen, limit=2)
    first, facing = metres.val.labels[0], normals.val.labels[0]
    known = facing.norm(dim=0) > 0
    assert 0.7 < known.float().mean() < 0.95 and not known[first == 0].any()
    torch.testing.assert_close(facing.norm(dim=0)[known], torch.ones(int(known.sum())))
    # The camera looks ahead and slightly down on a room: surfaces face it, and many face up (-y).
    assert facing[2][known].mean() < -0.4 and facing[1][known].mean() < -0.1
    assert normals.val.labels.fingerprint() != metres.val.labels.fingerprint()
