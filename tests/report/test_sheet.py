import pytest
import torch
from PIL import Image
from report_toys import Blocks

from eyespot.data.sources.decode import PictureError
from eyespot.report import pca_columns, visualize, visualize_files


@pytest.fixture
def images():
    return torch.rand(2, 3, 40, 60, generator=torch.Generator().manual_seed(0))


def picture_file(path, size):
    Image.effect_noise(size, 80).convert("RGB").save(path)
    return path


def test_columns_hold_the_pictures_and_one_map_per_encoder(images):
    columns = pca_columns({"a": Blocks(), "b": Blocks(4, (16, 16))}, images, align_to="a")
    assert list(columns) == ["picture", "a", "b"]
    assert all(pictures.shape == (2, 3, 40, 60) and pictures.dtype == torch.uint8 for pictures in columns.values())
    assert torch.equal(columns["picture"], (images * 255).round().to(torch.uint8))


def test_each_encoder_gets_a_size_that_it_can_take(images):
    free, fixed, wide, exact = Blocks(16), Blocks(8, (24, 24)), Blocks(8), Blocks(8)
    encoders = {"free": free, "fixed": fixed, "wide": wide, "exact": exact}
    pca_columns(encoders, images, sizes={"wide": 80, "fixed": 80, "exact": (16, 64)})
    assert [encoder.seen for encoder in encoders.values()] == [[(48, 64)], [(24, 24)], [(80, 120)], [(16, 64)]]


def test_training_mode_comes_back(images):
    encoder = Blocks().train()
    pca_columns({"a": encoder}, images)
    assert encoder.training


def test_unknown_labels_are_refused(images):
    with pytest.raises(ValueError, match="no encoder is called 'proxi'"):
        pca_columns({"proxy": Blocks()}, images, align_to="proxi")
    with pytest.raises(ValueError, match="no encoder is called 'x'"):
        pca_columns({"proxy": Blocks()}, images, sizes={"x": 32})


def test_the_sheet_is_a_png_with_one_row_per_picture(images, tmp_path):
    visualize({"$a$ long name of an encoder with many words": Blocks()}, images, tmp_path / "one.png")
    visualize({"a": Blocks(), "b": Blocks(), "c": Blocks()}, images, tmp_path / "three.png")
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "three.png") as three:
        assert one.format == three.format == "PNG"
        assert three.width == 2 * one.width
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "three.png"]


def test_another_format_is_refused(images, tmp_path):
    with pytest.raises(ValueError, match=r"end in \.png"):
        visualize({"a": Blocks()}, images, tmp_path / "sheet.jpg")


def test_files_are_cropped_to_the_shape_of_the_first(tmp_path):
    files = [picture_file(tmp_path / "wide.png", (120, 60)), picture_file(tmp_path / "tall.jpg", (50, 90))]
    encoder = Blocks(8)
    assert visualize_files([encoder], files, tmp_path / "sheet.png", size=64) == tmp_path / "sheet.png"
    assert encoder.seen == [(64, 128)]


def test_models_may_be_specs(tmp_path):
    file = picture_file(tmp_path / "picture.png", (64, 64))
    spec = "timm/test_vit?pretrained=false"
    visualize_files([spec], [file], tmp_path / "sheet.png", size=160)
    assert (tmp_path / "sheet.png").is_file()


def test_bad_files_and_empty_lists_are_refused(tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    with pytest.raises(PictureError, match=r"broken\.jpg"):
        visualize_files([Blocks()], [broken], tmp_path / "sheet.png")
    with pytest.raises(ValueError, match="at least one"):
        visualize_files([], [broken], tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()
