import pytest
import torch

from eyespot.data.sets import ClassificationData, LabelledPictures, TensorPictures
from eyespot.evaluate import FeatureBank
from eyespot.evaluate.protocols import linear


@pytest.fixture
def squares():
    """The label is where a bright square stands."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (120,), generator=generator)
    images = 0.1 * torch.rand(120, 3, 32, 32, generator=generator)
    for index, label in enumerate(labels.tolist()):
        images[index, :, 8 * label : 8 * label + 8, 8:16] += 0.5
    split = [LabelledPictures(TensorPictures(images[part]), labels[part]) for part in (slice(80), slice(80, None))]
    return ClassificationData(split[0], split[1], ["up", "down"])


def test_reading_sees_where_summaries_do_not(colours, squares):
    assert linear.run(FeatureBank(colours), squares) == {"accuracy": 1.0}
    plain = colours._encode
    colours._encode = lambda pictures: type(features := plain(pictures))(features.summary * 0, features.patches)
    assert linear.run_reading(FeatureBank(colours), squares)["accuracy"] == 1.0
    assert linear.run(FeatureBank(colours), squares)["accuracy"] < 0.8


def test_pictures_without_a_label_are_left_out(colours, squares):
    labels = squares.val.labels.clone()
    labels[10:] = -1
    wrong = torch.where(torch.arange(80) < 40, squares.train.labels, -1)
    data = ClassificationData(
        LabelledPictures(squares.train.pictures, wrong), LabelledPictures(squares.val.pictures, labels), squares.classes
    )
    assert linear.run(FeatureBank(colours), data, strengths=0.1) == {"accuracy": 1.0}
