import pytest
import torch

from eyespot.data.sets import ToyboxConfig, ToyboxData
from eyespot.data.toybox import SEMANTIC_CLASSES, SHAPES, WORDS


@pytest.fixture(scope="module")
def toybox():
    return ToyboxData(ToyboxConfig(train=60, val=12, pairs=6, size=32))


def test_all_tasks_share_the_same_pictures(toybox):
    train = toybox.classification().train.pictures
    assert toybox.reading().train.pictures is train
    assert toybox.segmentation().train.pictures is train
    assert toybox.depth().train.pictures is train
    assert toybox.matching().sources is toybox.classification().val.pictures


def test_labels_lie_in_their_ranges(toybox):
    shapes, words, masks = toybox.classification(), toybox.reading(), toybox.segmentation()
    assert shapes.classes == list(SHAPES) and words.classes == list(WORDS)
    assert int(shapes.train.labels.min()) >= 0 and int(shapes.train.labels.max()) < len(SHAPES)
    assert int(words.train.labels.min()) >= -1 and int(words.train.labels.max()) < len(WORDS)
    assert int(masks.train.labels.max()) < masks.classes == len(SEMANTIC_CLASSES)
    depth = toybox.depth()
    assert 0 < depth.low < depth.high < 100


def test_training_and_validation_scenes_differ(toybox):
    data = toybox.classification()
    train, val = data.train.pictures.images[:12], data.val.pictures.images
    assert (train.float() - val.float()).abs().mean((1, 2, 3)).min() > 1


def test_points_of_a_pair_are_inside_both_pictures(toybox):
    data = toybox.matching()
    assert len(data.pairs) > 0
    for pair in data.pairs:
        points = torch.cat([pair.source_points, pair.target_points])
        assert points.min() >= 0 and points.max() <= 32
        assert pair.source_points.shape == pair.target_points.shape
