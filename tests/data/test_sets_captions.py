import pytest
import torch
from PIL import Image

from eyespot.data.sets import LayoutError, open_caption_folder, open_picture_folder


@pytest.fixture
def folder(tmp_path):
    for place, grey in (("a.png", 0), ("deep/er/b.jpg", 100), ("deep/c.png", 200)):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10), (grey,) * 3).save(path)
        path.with_suffix(".txt").write_text(f"grey {grey}\n\n  like {place} \n", encoding="utf-8")
    return tmp_path


def test_all_pictures_below_a_folder(folder):
    pictures = open_picture_folder(folder)
    assert [path.name for path in pictures.paths] == ["a.png", "c.png", "b.jpg"] and pictures.crop
    greys = pictures.read(0, 3, (8, 8)).mean((1, 2, 3)) * 255
    torch.testing.assert_close(greys, torch.tensor([0.0, 200, 100]), atol=2, rtol=0)
    assert len(open_picture_folder(folder, limit=2)) == 2
    assert pictures.fingerprint() != open_picture_folder(folder, limit=2).fingerprint()


def test_captions_stand_beside_the_pictures(folder):
    data = open_caption_folder(folder)
    assert data.captions[2] == ["grey 100", "like deep/er/b.jpg"]
    assert open_caption_folder(folder, limit=1).captions == [["grey 0", "like a.png"]]


def test_a_picture_without_captions(folder):
    (folder / "a.txt").write_text("\n \n")
    with pytest.raises(LayoutError, match=r"no caption in .*a\.txt; expected .*one caption per line"):
        open_caption_folder(folder)
    (folder / "a.txt").unlink()
    with pytest.raises(LayoutError, match=r"no .*a\.txt"):
        open_caption_folder(folder)


def test_an_empty_folder(tmp_path):
    with pytest.raises(ValueError, match="no pictures"):
        open_picture_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_picture_folder(tmp_path / "nowhere")
