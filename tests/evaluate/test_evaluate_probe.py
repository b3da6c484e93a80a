import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eyespot.evaluate.probing import probe
from eyespot.evaluate.probing.probe import (
    ProbeConfig,
    _share_of_peak,
    class_map,
    draw_points,
    linear_head,
    predictions,
    sample,
    train_probe,
    upsampled,
)


def test_sampling_at_pixel_centres_equals_upsampling():
    maps = torch.randn(2, 3, 4, 5)
    height, width = 12, 10
    whole = F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    positions = torch.stack([x / width, y / height], -1).reshape(1, -1, 2).expand(2, -1, -1) * 2 - 1
    torch.testing.assert_close(sample(maps, positions), whole.flatten(2))


def test_drawn_points_carry_the_label_of_their_place():
    label = torch.arange(35).reshape(5, 7)
    positions, values = draw_points([label, label.T], 50, torch.Generator().manual_seed(0))
    x, y = ((positions[0] + 1) / 2 * torch.tensor([7, 5])).unbind(1)
    assert torch.equal(label[y.floor().long(), x.floor().long()], values[0])
    assert values.shape == (2, 50)


def test_schedule_warms_up_and_ends_near_zero():
    config = ProbeConfig(steps=100, warmup=0.1)
    shares = [_share_of_peak(step, config) for step in range(100)]
    assert shares[0] == pytest.approx(0.1) and shares[10] == 1.0 and max(shares) == 1.0
    assert shares[10:] == sorted(shares[10:], reverse=True) and shares[-1] < 0.01


def test_training_is_reproducible_and_depends_on_the_seed():
    patches, labels = torch.randn(5, 4, 3, 3), torch.randint(2, (5, 9, 9))

    def weights(seed):
        head = linear_head(4, 2, seed)
        loss = lambda output, truth: F.cross_entropy(output, truth)  # noqa: E731
        train_probe(head, patches, labels, loss, ProbeConfig(steps=5, points=20), seed)
        return head[1].weight

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_a_diverging_probe_says_so():
    head = linear_head(2, 1, 0)
    with pytest.raises(FloatingPointError, match="learning rate"):
        train_probe(
            head,
            torch.randn(2, 2, 2, 2),
            torch.zeros(2, 4, 4),
            lambda out, _: out.sum() * float("nan"),
            ProbeConfig(steps=1),
            0,
        )


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


def test_drawn_points_of_vectors():
    label = torch.stack([torch.arange(12).reshape(3, 4), -torch.arange(12).reshape(3, 4)])
    positions, values = draw_points([label], 30, torch.Generator().manual_seed(0))
    x, y = ((positions[0] + 1) / 2 * torch.tensor([4, 3])).unbind(1)
    assert torch.equal(label[:, y.floor().long(), x.floor().long()], values[0])
    assert values.shape == (1, 2, 30)
