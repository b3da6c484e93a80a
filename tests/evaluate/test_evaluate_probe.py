import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eyespot.evaluate.probing import probe
from eyespot.evaluate.probing.probe import LinearMap, class_map, predictions, sample, upsampled


def test_sampling_at_pixel_centres_equals_upsampling():
    maps = torch.randn(2, 3, 4, 5)
    height, width = 12, 10
    whole = F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    positions = torch.stack([x / width, y / height], -1).reshape(1, -1, 2).expand(2, -1, -1) * 2 - 1
    torch.testing.assert_close(sample(maps, positions), whole.flatten(2))


def test_a_linear_map_is_a_convolution_of_centred_patches_within_its_bounds():
    patches, mean, weight, bias = torch.randn(2, 5, 3, 4), torch.randn(5), torch.randn(2, 5), torch.randn(2)
    wanted = F.conv2d(patches - mean[:, None, None], weight[:, :, None, None], bias)
    torch.testing.assert_close(LinearMap(mean, weight, bias)(patches), wanted)
    torch.testing.assert_close(LinearMap(mean, weight, bias, (-0.5, 0.5))(patches), wanted.clamp(-0.5, 0.5))


def test_predictions_come_picture_by_picture_with_their_labels():
    labels = [torch.zeros(4, 6), torch.ones(9, 3)]
    patches = torch.randn(2, 5, 2, 2)
    found = list(predictions(nn.Identity(), patches, labels, batch_size=1))
    assert all(torch.equal(output, patch) for (output, _), patch in zip(found, patches, strict=True))
    assert [label.shape for _, label in found] == [(4, 6), (9, 3)]


@pytest.mark.parametrize("size", [(40, 30), (5, 4), (7, 3), (3, 9)])
def test_classes_by_strips_equal_those_of_the_whole(size, monkeypatch):
    scores = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(probe, "STRIP", 6 * size[1] * 2)  # two rows at a time
    assert torch.equal(class_map(scores, size), upsampled(scores, size).argmax(dim=0))
