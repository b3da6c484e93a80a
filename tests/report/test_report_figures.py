import base64
import io

import pytest
import torch
from PIL import Image
from report_toys import noise

from eyespot.report import PictureGrid, Strip
from eyespot.report.exhibits.figures import as_bytes, picture_uri, shrunk


def opened(uri):
    kind, _, content = uri.removeprefix("data:image/").partition(";base64,")
    return kind, Image.open(io.BytesIO(base64.b64decode(content)))


def test_flat_cells_are_kept_exactly_and_photos_are_compressed():
    cells = noise(3, 4, 4).repeat_interleave(16, 1).repeat_interleave(16, 2)
    kind, shown = opened(picture_uri(cells))
    assert kind == "png"
    assert torch.equal(
        torch.frombuffer(bytearray(shown.tobytes()), dtype=torch.uint8).view(64, 64, 3), cells.permute(1, 2, 0)
    )
    kind, shown = opened(picture_uri(noise(3, 100, 60)))
    assert (kind, shown.size) == ("webp", (60, 100))


def test_pictures_are_shrunk_to_the_wanted_side_and_never_enlarged():
    assert opened(picture_uri(noise(3, 100, 60), side=50))[1].size == (30, 50)
    assert shrunk(noise(3, 100, 60), 50).shape == (3, 50, 30)
    assert shrunk(noise(3, 20, 10), 50).shape == (3, 20, 10)


@pytest.mark.parametrize("picture", [torch.zeros(3, 4, 4), torch.zeros(1, 3, 4, 4, dtype=torch.uint8)])
def test_only_single_uint8_pictures_are_taken(picture):
    with pytest.raises(ValueError, match="uint8 picture"):
        picture_uri(picture)


def test_a_grid_of_unequal_columns_is_refused():
    with pytest.raises(ValueError, match="same number of pictures"):
        PictureGrid("t", "c", {"a": noise(2, 3, 4, 4), "b": noise(1, 3, 4, 4)})


@pytest.mark.parametrize("notes", [{"a": ["one"]}, {"b": ["one", "two"]}])
def test_notes_must_fit_their_column(notes):
    with pytest.raises(ValueError, match="notes for column"):
        PictureGrid("t", "c", {"a": noise(2, 3, 4, 4)}, notes)


def test_a_column_may_hold_pictures_of_several_sizes():
    grid = PictureGrid("t", "c", {"a": [noise(3, 20, 10), noise(3, 10, 30)]}, {"a": ["", "wide"]})
    rows = grid.rows()
    assert [opened(row[0][1])[1].size for row in rows] == [(10, 20), (30, 10)]
    assert [row[0][0] for row in rows] == ["a, scene 1", "a, scene 2: wide"]


def test_a_strip_without_marks_has_none():
    strip = Strip("a", [noise(3, 4, 4)] * 2, ["x", "y"])
    assert [(alt, mark) for alt, _, mark in strip.cells(4)] == [("x", None), ("y", None)]


def test_floats_become_bytes():
    assert as_bytes(torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0])).tolist() == [0, 0, 128, 255, 255]
