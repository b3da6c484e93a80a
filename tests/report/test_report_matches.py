import pytest
import torch
from report_toys import Blocks

from eyespot.data.labelled.base import MatchingData, PointPair, TensorPictures
from eyespot.evaluate.extraction import FeatureBank
from eyespot.report.exhibits.matches import Matches


@pytest.fixture
def data():
    image = torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    pictures = TensorPictures(image)
    centres = torch.tensor([[4.0, 4.0], [20.0, 12.0], [60.0, 28.0]])
    pair = PointPair(0, 0, centres, centres, (32, 64), (32, 64), reach=64)
    return MatchingData(pictures, pictures, [pair])


def test_equal_pictures_match_point_by_point(data):
    (found,) = Matches(data).look(FeatureBank(Blocks(8), (32, 64)))
    assert torch.allclose(found, data.pairs[0].target_points, atol=0.5)


def test_strips_count_all_points_and_show_the_true_ones_first(data):
    wrong = data.pairs[0].target_points.clone()
    wrong[1] += 20
    (figure,) = Matches(data, lines=2).draw({"a": [wrong]})
    (group,) = figure.groups
    truth, strip = group.strips
    assert (truth.label, truth.note) == ("true places", "")
    assert strip.note == "2 of 3 points right" and strip.alts == ["a: 2 of 3 points right"]
    assert not figure.thumbnails and group.picture is None
    picture = strip.pictures[0]
    assert picture.shape == (3, 240, 2 * 480 + 8) and picture.dtype == torch.uint8
    assert torch.equal(picture[:, :3], truth.pictures[0][:, :3])  # the same photographs below
    assert not torch.equal(picture, truth.pictures[0])


def test_right_matches_are_blue_and_wrong_ones_orange(data):
    def coloured(found):
        strip = Matches(data).draw({"a": [found]})[0].groups[0].strips[1]
        red, _, blue = strip.pictures[0].int()
        return int((blue > red + 90).sum()), int((red > blue + 90).sum())

    right = coloured(data.pairs[0].target_points)
    wrong = coloured(data.pairs[0].target_points.flip(0) + torch.tensor([[0.0, 0.0], [15.0, 0.0], [0.0, 0.0]]))
    assert right[0] > 0 and right[1] == 0
    assert wrong[1] > 0 and wrong[0] == 0


def test_without_pairs_there_is_nothing_to_draw(data):
    assert Matches(MatchingData(data.sources, data.targets, [])).draw({"a": []}) == []
