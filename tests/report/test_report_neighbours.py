import pytest
import torch
from report_toys import Blocks

from eyespot.data.labelled.base import ClassificationData, LabelledPictures, TensorPictures
from eyespot.evaluate.extraction import FeatureBank
from eyespot.report.exhibits.neighbours import Neighbours

COLOURS = {"dark_red": (0.6, 0.1, 0.1), "green": (0.1, 0.8, 0.1), "blue": (0.1, 0.1, 0.9)}


def labelled(names, labels=None):
    colours = torch.tensor([COLOURS[name] for name in names])
    images = colours[:, :, None, None].expand(-1, -1, 16, 16).contiguous()
    classes = [list(COLOURS).index(name) for name in names] if labels is None else labels
    return LabelledPictures(TensorPictures(images), torch.tensor(classes))


@pytest.fixture
def data():
    train = labelled(["dark_red", "green", "blue", "green", "green"], [0, 1, 2, -1, 0])
    return ClassificationData(train, labelled(["green", "blue"]), list(COLOURS))


def test_neighbours_are_the_most_similar_labelled_pictures(data):
    exhibit = Neighbours(data, queries=2, k=2)
    (found,) = exhibit.look(FeatureBank(Blocks(8), 16))
    assert sorted(found[0].tolist()) == [1, 4]  # 3 is as green but has no label
    assert int(found[1, 0]) == 2


def test_strips_mark_the_class_of_the_query(data):
    exhibit = Neighbours(data, queries=2, k=3)
    (figure,) = exhibit.draw({"a": [torch.tensor([[1, 4, 0], [2, 1, 4]])]})
    green, blue = figure.groups
    assert (green.heading, blue.heading) == ("green", "blue")
    strip = green.strips[0]
    assert (strip.label, strip.right, strip.note) == ("a", [True, False, False], "1 of 3 of its class")
    assert strip.alts[0] == "neighbour 1 for a: green, the same class"
    assert strip.alts[1] == "neighbour 2 for a: dark_red, another class"
    assert blue.strips[0].right == [True, False, False]
    assert all(picture.dtype == torch.uint8 and picture.shape[0] == 3 for picture in strip.pictures)


def test_queries_without_a_label_are_not_asked(data):
    val = labelled(["green", "blue"], [-1, 2])
    assert (
        Neighbours(ClassificationData(data.train, val, data.classes))
        .draw({"a": [torch.tensor([[2]])]})[0]
        .groups[0]
        .heading
        == "blue"
    )
    nobody = ClassificationData(data.train, labelled(["green"], [-1]), data.classes)
    assert Neighbours(nobody).draw({"a": [torch.empty(0, 5)]}) == []
