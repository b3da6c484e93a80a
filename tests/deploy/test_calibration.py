import numpy as np
import pytest
import torch
from PIL import Image

from eyespot.data.loading.batch_loader import BrokenSourceError
from eyespot.deploy.calibration import calibration_batches


def write_pictures(folder, count, colour=None, size=(20, 12)):
    """Pictures of one colour each; by default the red channel tells the number."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", size, colour or (number, 0, 0)).save(folder / f"{number:03d}.png")
    return str(folder)


def reds(batches):
    return [round(float(picture[0].mean()) * 255) for picture in torch.cat(batches)]


def test_batches_are_full_floats_in_range_and_a_function_of_the_arguments(tmp_path):
    folder = write_pictures(tmp_path, 40)
    batches = calibration_batches([folder], 10, 4, (16, 32), 0)
    assert [batch.shape for batch in batches] == [(4, 3, 16, 32)] * 3
    assert all(batch.dtype == torch.float32 and batch.min() >= 0 and batch.max() <= 1 for batch in batches)
    assert len(set(reds(batches))) == 12
    again = calibration_batches([folder], 10, 4, (16, 32), 0)
    assert all(torch.equal(first, second) for first, second in zip(batches, again, strict=True))
    assert reds(calibration_batches([folder], 10, 4, (16, 32), 1)) != reds(batches)


def test_every_stretch_of_a_source_has_its_picture(tmp_path):
    folder = write_pictures(tmp_path, 50)
    for seed in range(5):
        found = sorted(reds(calibration_batches([folder], 10, 5, (8, 8), seed)))
        assert [red // 5 for red in found] == list(range(10))


def test_sources_share_the_pictures_as_far_as_they_have_some(tmp_path):
    folders = [write_pictures(tmp_path / "few", 3, (10, 0, 0)), write_pictures(tmp_path / "many", 30, (20, 0, 0))]
    found = reds(calibration_batches([folders[1], *folders[:1]], 12, 1, (8, 8), 0))
    assert (found.count(10), found.count(20)) == (3, 9)
    found = reds(calibration_batches(folders[::-1], 4, 2, (8, 8), 0))
    assert (found.count(10), found.count(20)) == (2, 2)
    assert 10 in reds(calibration_batches(folders, 24, 1, (8, 8), 0))[:16]  # sources are mixed


def test_the_middle_is_cut_out_and_proportions_are_kept(tmp_path):
    stripes = np.zeros((30, 90, 3), np.uint8)
    stripes[:, :30, 0], stripes[:, 30:60, 1], stripes[:, 60:, 2] = 255, 255, 255
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    square = calibration_batches([str(tmp_path)], 1, 1, (30, 30), 0)[0]
    assert torch.equal(square[0, 1], torch.ones(30, 30)) and square[0, [0, 2]].max() == 0
    whole = calibration_batches([str(tmp_path)], 1, 1, (30, 90), 0)[0]
    assert torch.equal(whole[0], torch.from_numpy(stripes).permute(2, 0, 1).float() / 255)


def test_broken_pictures_are_replaced_and_counted(tmp_path):
    folder = write_pictures(tmp_path, 20)
    for number in range(0, 20, 2):
        (tmp_path / f"{number:03d}.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match=r"broken pictures left out, the first is .*\.png"):
        found = reds(calibration_batches([folder], 8, 4, (8, 8), 0))
    assert len(set(found)) == 8 and all(red % 2 for red in found)


def test_too_few_pictures_fill_the_last_batch_with_the_first_again(tmp_path):
    folder = write_pictures(tmp_path, 5)
    found = reds(calibration_batches([folder], 100, 4, (8, 8), 0))
    assert len(found) == 8 and sorted(found[:5]) == list(range(5)) and found[5:] == found[:3]


def test_a_source_without_one_good_picture_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(BrokenSourceError, match=r"1 pictures of .* cannot be read .*the file is empty"):
        calibration_batches([str(tmp_path)], 4, 4, (8, 8), 0)


def test_the_toybox_serves_where_no_source_is_named():
    batches = calibration_batches(None, 6, 4, (32, 48), 0)
    assert [batch.shape for batch in batches] == [(4, 3, 32, 48)] * 2
    pictures = torch.cat(batches)
    assert len({picture.numpy().tobytes() for picture in pictures}) == 8 and pictures.std() > 0.05


@pytest.mark.parametrize(
    ("sources", "count", "batch", "size"),
    [(None, 0, 1, (8, 8)), (None, 1, 0, (8, 8)), (None, 1, 1, (0, 8)), ([], 1, 1, (8, 8)), ("toybox", 1, 1, (8, 8))],
)
def test_bad_arguments_are_refused(sources, count, batch, size):
    with pytest.raises(ValueError, match=r"at least one picture|a list of folders"):
        calibration_batches(sources, count, batch, size, 0)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        calibration_batches([str(tmp_path / "nowhere")], 1, 1, (8, 8), 0)
