import numpy as np
import pytest
from PIL import Image

from eyespot.data.toybox import SHAPES, ToyboxSource, contact_sheet, render


def test_reads_the_rendered_scenes_with_their_labels():
    source = ToyboxSource(count=70, size=16, seed=3)
    assert len(source) == 70 and source.classes == SHAPES and source.name == "toybox:70@16#3"
    for index in (0, 63, 64, 69):
        picture = source.read(index)
        scene = render([source.scene_seed(index)], 16)
        expected = (scene.images[0] * 255).round().byte().permute(1, 2, 0).numpy()
        assert picture.mode == "RGB" and picture.size == (16, 16)
        assert np.array_equal(np.asarray(picture), expected)
        assert source.label(index) == int(scene.shape[0])
        assert str(source.scene_seed(index)) in source.picture_name(index)


def test_sources_of_other_seeds_share_no_scene():
    train, val = ToyboxSource(1000, 16, seed=0), ToyboxSource(1000, 16, seed=1)
    assert not {train.scene_seed(i) for i in range(1000)} & {val.scene_seed(i) for i in range(1000)}


def test_fingerprint_tells_sources_apart():
    arguments = [(10, 16, 0), (11, 16, 0), (10, 24, 0), (10, 16, 1)]
    assert len({ToyboxSource(*each).fingerprint() for each in arguments}) == 4
    assert ToyboxSource(10, 16).fingerprint() == ToyboxSource(10, 16).fingerprint()


def test_bad_arguments():
    with pytest.raises(ValueError, match="count is 0"):
        ToyboxSource(0)
    with pytest.raises(ValueError, match="at least 8 pixels"):
        ToyboxSource(4, size=4)
    source = ToyboxSource(4, size=8)
    for index in (-1, 4):
        with pytest.raises(IndexError, match="toybox of 4"):
            source.read(index)
        with pytest.raises(IndexError, match="toybox of 4"):
            source.label(index)


@pytest.mark.parametrize("detailed", [0, 2])
def test_contact_sheet(tmp_path, detailed):
    path = tmp_path / "new" / "sheet.png"
    contact_sheet(path, seeds=range(9), size=24, detailed=detailed)
    sheet = Image.open(path)
    assert sheet.size[0] == 8 * 28 + 4 and sheet.size[1] > (2 + detailed) * 28
    assert [file.name for file in path.parent.iterdir()] == ["sheet.png"]
    with pytest.raises(ValueError, match="seeds is empty"):
        contact_sheet(path, seeds=[])
