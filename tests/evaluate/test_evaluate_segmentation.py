import pytest
import torch

from eyespot.evaluate import FeatureBank, segmentation
from eyespot.evaluate.datasets import DensePictures, SegmentationData, TensorPictures
from eyespot.evaluate.segmentation import MeanIoU, pixel_cross_entropy


def test_mean_iou_by_hand():
    metric = MeanIoU(classes=4, ignore=9)
    metric.update(torch.tensor([[0, 0], [1, 1]]), torch.tensor([[0, 1], [1, 9]]))
    metric.update(torch.tensor([[2]]), torch.tensor([[0]]))
    # class 0: 1 of {1 + 1 wrongly 0 + 1 missed} = 1/3; class 1: 1/2; class 2: 0/1; class 3 occurs nowhere.
    assert metric.compute() == pytest.approx((1 / 3 + 1 / 2 + 0) / 3)


def test_cross_entropy_skips_ignored_pixels():
    logits = torch.randn(2, 3, 5)
    truth = torch.tensor([[0, 1, 2, 7, 7], [7, 7, 7, 7, 1]])
    keep = truth != 7
    wanted = torch.nn.functional.cross_entropy(logits.transpose(1, 2)[keep], truth[keep])
    torch.testing.assert_close(pixel_cross_entropy(logits, truth, ignore=7), wanted)
    assert pixel_cross_entropy(logits, torch.full((2, 5), 7), ignore=7) == 0


def coloured_blocks(count, seed):
    """Pictures of 8 x 8 blocks in three colours, and masks that tell them apart; label 9 on the last row."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(3, (count, 4, 4), generator=generator)
    masks = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)
    palette = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.9, 0.1], [0.1, 0.1, 0.9]])
    images = palette[masks].permute(0, 3, 1, 2)
    masks = masks.clone()
    masks[:, -1] = 9
    return DensePictures(TensorPictures(images), masks)


def test_colours_are_told_apart_by_colour_features(colours):
    data = SegmentationData(coloured_blocks(20, 0), coloured_blocks(8, 1), classes=3, ignore=9)
    first = segmentation.run(FeatureBank(colours), data, steps=60)
    assert first["mIoU"] > 0.7
    assert segmentation.run(FeatureBank(colours), data, steps=60) == first


def test_features_without_information_are_at_chance(colours):
    colours._encode = lambda images: type(colours)._encode(colours, torch.rand_like(images))
    data = SegmentationData(coloured_blocks(20, 0), coloured_blocks(8, 1), classes=3, ignore=9)
    assert segmentation.run(FeatureBank(colours), data, steps=60)["mIoU"] < 0.3


def test_masks_may_differ_in_size(colours):
    train = coloured_blocks(6, 0)
    cut = DensePictures(train.pictures, [mask[:, : 20 + index] for index, mask in enumerate(train.labels)])
    data = SegmentationData(cut, cut, classes=3, ignore=9)
    assert 0 <= segmentation.run(FeatureBank(colours), data, steps=3)["mIoU"] <= 1
