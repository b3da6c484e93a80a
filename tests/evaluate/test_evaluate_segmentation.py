from dataclasses import replace

import pytest
import torch
from torchmetrics.segmentation import MeanIoU as OtherMeanIoU

from eyespot.data.sets import DensePictures, SegmentationData, TensorPictures
from eyespot.evaluate import FeatureBank
from eyespot.evaluate.protocols import segmentation
from eyespot.evaluate.protocols.segmentation import PUBLISHED, MeanIoU, pixel_cross_entropy


def test_mean_iou_by_hand():
    metric = MeanIoU(classes=4, ignore=9)
    metric.update(torch.tensor([[0, 0], [1, 1]]), torch.tensor([[0, 1], [1, 9]]))
    metric.update(torch.tensor([[2]]), torch.tensor([[0]]))
    # class 0: 1 of {1 + 1 wrongly 0 + 1 missed} = 1/3; class 1: 1/2; class 2: 0/1; class 3 occurs nowhere.
    assert metric.compute() == pytest.approx((1 / 3 + 1 / 2 + 0) / 3)


def test_mean_iou_agrees_with_torchmetrics():
    """Which has no pooling over pictures of its own: one picture, and every class in it."""
    generator = torch.Generator().manual_seed(0)
    predicted, truth = (torch.randint(5, (40, 30), generator=generator) for _ in range(2))
    metric = MeanIoU(classes=5, ignore=255)
    metric.update(predicted, truth)
    other = OtherMeanIoU(num_classes=5, input_format="index")
    assert metric.compute() == pytest.approx(float(other(predicted[None], truth[None])), abs=1e-6)


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
    first = segmentation.run(FeatureBank(colours), data)
    assert first["mIoU"] > 0.7
    assert segmentation.run(FeatureBank(colours), data) == first


def test_features_without_information_are_at_chance(colours):
    colours._encode = lambda images: type(colours)._encode(colours, torch.rand_like(images))
    data = SegmentationData(coloured_blocks(20, 0), coloured_blocks(8, 1), classes=3, ignore=9)
    assert segmentation.run(FeatureBank(colours), data)["mIoU"] < 0.3


def test_masks_may_differ_in_size(colours):
    train = coloured_blocks(6, 0)
    cut = DensePictures(train.pictures, [mask[:, : 20 + index] for index, mask in enumerate(train.labels)])
    data = SegmentationData(cut, cut, classes=3, ignore=9)
    assert 0 <= segmentation.run(FeatureBank(colours), data)["mIoU"] <= 1


@pytest.fixture
def colour_kept(monkeypatch):
    """The published protocol but for its changes of hue and saturation, which take away what this encoder sees."""
    monkeypatch.setattr(segmentation, "PUBLISHED", replace(PUBLISHED, hue=(0, 0), saturation=(1, 1), dropout=0.0))


SMALL = {"schedule": "published", "short_side": 32, "crop": 32, "stride": 21, "batch_size": 8, "workers": 2}


def test_the_published_numbers():
    """Paper notes, C; the comment of `dense_views` names the files of the release."""
    wanted = {
        **{"steps": 40_000, "batch_size": 16, "learning_rate": 1e-3, "betas": (0.9, 0.999), "weight_decay": 1e-3},
        **{"warmup": 1500 / 40_000, "clip": None, "beta1_cycle": None, "dropout": 0.1},
        **{"short_side": 512, "scale": (0.5, 2.0), "crop": 512, "stride": 341, "flip": 0.5, "train_mode": False},
    }
    assert {name: getattr(PUBLISHED, name) for name in wanted} == wanted


def test_the_published_protocol_tells_colours_apart(colours, colour_kept):
    data = SegmentationData(coloured_blocks(20, 0), coloured_blocks(8, 1), classes=3, ignore=9)
    options = {**SMALL, "steps": 60, "learning_rate": 0.05}
    seen = []
    bank = FeatureBank(colours, size=64, progress=lambda done, total: seen.append((done, total)))
    first = segmentation.run(bank, data, **options)
    assert first["mIoU"] > 0.7 and seen[-1] == (60, 60)
    assert colours.sizes_seen == {(32, 32)}  # the evaluation's size plays no part
    assert segmentation.run(FeatureBank(colours), data, **{**options, "workers": 1}) == first
    assert segmentation.run(FeatureBank(colours), data, **options, seed=1) != first


def test_pictures_of_many_sizes_and_an_encoder_with_one(colour_encoder, colour_kept):
    """Windows of the native size, also where a picture is smaller, from pictures of their own sizes."""
    encoder = colour_encoder(native_size=(16, 24))
    train = coloured_blocks(6, 0)
    data = SegmentationData(train, OddPictures.of(coloured_blocks(3, 1)), classes=3, ignore=9)
    assert 0 <= segmentation.run(FeatureBank(encoder), data, **{**SMALL, "steps": 2})["mIoU"] <= 1
    assert encoder.sizes_seen == {(16, 24)}


class OddPictures:
    """Pictures cut to different heights."""

    def __init__(self, images):
        self.images = images

    @staticmethod
    def of(data):
        cut = [
            (image[:, : 20 + 5 * n], mask[: 20 + 5 * n])
            for n, (image, mask) in enumerate(zip(data.pictures.images, data.labels, strict=True))
        ]
        return DensePictures(OddPictures([image for image, _ in cut]), [mask for _, mask in cut])

    def __len__(self):
        return len(self.images)

    def original(self, index):
        return (self.images[index] * 255).to(torch.uint8)


def test_an_encoder_in_train_mode_is_put_to_eval_and_back(colours, colour_kept):
    colours.train()
    modes = []
    encode = colours._encode
    colours._encode = lambda images: modes.append(colours.training) or encode(images)
    data = SegmentationData(coloured_blocks(4, 0), coloured_blocks(2, 1), classes=3, ignore=9)
    segmentation.run(FeatureBank(colours), data, **{**SMALL, "steps": 2})
    assert set(modes) == {False} and colours.training


def test_options_of_the_other_schedule_are_refused(colours):
    data = SegmentationData(coloured_blocks(2, 0), coloured_blocks(2, 1), classes=3, ignore=9)
    with pytest.raises(ValueError, match="crop: only for schedule=published"):
        segmentation.run(FeatureBank(colours), data, crop=32)
    with pytest.raises(ValueError, match="there are quick, published"):
        segmentation.run(FeatureBank(colours), data, schedule="fast")
