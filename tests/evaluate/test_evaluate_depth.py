import math
from dataclasses import replace

import pytest
import torch
from torchmetrics.regression import MeanAbsolutePercentageError, MeanSquaredError

from eyespot.data.sets import DensePictures, DepthData, TensorPictures
from eyespot.evaluate import FeatureBank
from eyespot.evaluate.protocols import depth
from eyespot.evaluate.protocols.depth import (
    PUBLISHED,
    BinnedDepth,
    _mirrored_mean,
    depth_errors,
    scale_invariant_log_loss,
)


def test_errors_by_hand_with_missing_measurements():
    truth = torch.tensor([[1.0, 2.0], [0.0, 4.0]])
    found = depth_errors(torch.tensor([[1.0, 3.0], [9.0, 3.9]]), truth)
    assert found["RMSE"] == pytest.approx(math.sqrt((0 + 1 + 0.01) / 3))
    assert found["AbsRel"] == pytest.approx((0 + 0.5 + 0.025) / 3)
    assert found["delta1"] == pytest.approx(2 / 3)
    assert depth_errors(truth, torch.zeros(2, 2)) is None


def test_errors_agree_with_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    predicted, truth = (1 + 4 * torch.rand(20, 30, generator=generator) for _ in range(2))
    found = depth_errors(predicted, truth)
    assert found["RMSE"] == pytest.approx(float(MeanSquaredError(squared=False)(predicted, truth)), rel=1e-5)
    assert found["AbsRel"] == pytest.approx(float(MeanAbsolutePercentageError()(predicted, truth)), rel=1e-5)


def test_delta1_is_strict_and_symmetric():
    truth = torch.full((3,), 4.0)
    assert depth_errors(torch.tensor([5.0, 4.0 / 1.24, 4.0 / 1.26]), truth)["delta1"] == pytest.approx(1 / 3)


def test_loss_by_hand():
    truth = torch.tensor([[1.0, 2.0, 0.0, 4.0]])
    found = torch.tensor([[2.0, 2.0, 5.0, 2.0]])
    ratios = torch.tensor([math.log(2), 0.0, -math.log(2)])
    wanted = math.sqrt(ratios.var() + 0.15 * ratios.mean() ** 2)
    assert scale_invariant_log_loss(found, truth).item() == pytest.approx(wanted)


def test_loss_in_its_warm_up_and_with_an_epsilon_by_hand():
    truth, found = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[2.0, 2.0, 4.0]])
    ratios = torch.tensor([math.log(2.001 / 1.001), 0.0, 0.0])
    mean_only = scale_invariant_log_loss(found, truth, epsilon=1e-3, variance_weight=0.0)
    assert mean_only.item() == pytest.approx(math.sqrt(0.15) * float(ratios.mean()), rel=1e-4)
    whole = scale_invariant_log_loss(found, truth, epsilon=1e-3)
    assert whole.item() == pytest.approx(math.sqrt(ratios.var() + 0.15 * ratios.mean() ** 2), rel=1e-4)


def test_a_common_factor_counts_only_by_the_mean_term():
    truth = torch.rand(50) + 1
    assert scale_invariant_log_loss(truth * 3, truth, mean_weight=0.0).item() == pytest.approx(0, abs=1e-5)
    wanted = math.sqrt(0.15) * math.log(3)
    assert scale_invariant_log_loss(truth * 3, truth).item() == pytest.approx(wanted, rel=1e-4)


def test_loss_without_measurements_is_zero_and_has_a_gradient():
    found = torch.ones(1, 4, requires_grad=True)
    loss = scale_invariant_log_loss(found, torch.zeros(1, 4))
    loss.backward()
    assert loss == 0 and torch.equal(found.grad, torch.zeros(1, 4))


def test_head_is_the_expectation_over_linear_bins():
    head = BinnedDepth(channels=6, low=1.0, high=9.0, bins=5).eval()
    patches = torch.randn(2, 6, 3, 4)
    weights = head.scores(patches).relu() + 0.1
    weights = weights / weights.sum(1, keepdim=True)
    wanted = (weights * torch.tensor([1.0, 3, 5, 7, 9])[:, None, None]).sum(1, keepdim=True)
    torch.testing.assert_close(head(patches), wanted)
    with pytest.raises(ValueError, match="0 < low < high"):
        BinnedDepth(6, low=0.0, high=1.0)


def grey_is_far(count, seed, missing=False):
    generator = torch.Generator().manual_seed(seed)
    grey = torch.rand(count, 1, 4, 4, generator=generator).repeat_interleave(8, 2).repeat_interleave(8, 3)
    metres = 1 + 4 * grey[:, 0]
    if missing:
        metres[:, :, :16] = 0
    return DensePictures(TensorPictures(grey.expand(-1, 3, -1, -1)), metres)


def test_depth_that_is_linear_in_the_features_is_found(colours):
    data = DepthData(grey_is_far(25, 0, missing=True), grey_is_far(10, 1), low=0.5, high=6.0)
    first = depth.run(FeatureBank(colours), data)
    assert first["delta1"] > 0.75 and first["RMSE"] < 0.6
    assert depth.run(FeatureBank(colours), data) == first


def test_nothing_measured_in_validation(colours):
    val = grey_is_far(2, 1)
    data = DepthData(grey_is_far(4, 0), DensePictures(val.pictures, [torch.zeros(8, 8)] * 2))
    with pytest.raises(ValueError, match="measured"):
        depth.run(FeatureBank(colours), data)


SMALL = {"schedule": "published", "crop": (24, 32), "batch_size": 8, "workers": 2}


def test_the_published_numbers():
    wanted = {
        **{"steps": 38_400, "batch_size": 16, "learning_rate": 3e-4, "betas": (0.9, 0.99), "weight_decay": 1e-3},
        **{"beta1_cycle": (0.85, 0.95), "warmup": 12_800 / 38_400, "clip": 35.0, "mean_only": 100 / 38_400},
        **{"crop": (416, 544), "rotation": 2.5, "rotate": 0.5, "flip": 0.5, "brightness": (0.75, 1.25)},
    }
    assert {name: getattr(PUBLISHED, name) for name in wanted} == wanted


def test_the_published_protocol_finds_depth(colours, monkeypatch):
    """But for its changes of brightness, which is all that this encoder sees."""
    monkeypatch.setattr(depth, "PUBLISHED", replace(PUBLISHED, recolour=0.0))
    data = DepthData(grey_is_far(25, 0, missing=True), grey_is_far(10, 1), low=0.5, high=6.0, train_box=(0, 0, 32, 30))
    first = depth.run(FeatureBank(colours), data, **SMALL, steps=80, learning_rate=0.05)
    assert first["delta1"] > 0.75 and first["RMSE"] < 0.6
    assert colours.sizes_seen == {(24, 32), (32, 32)}
    assert depth.run(FeatureBank(colours), data, **SMALL, steps=80, learning_rate=0.05) == first


def test_the_test_is_the_mean_over_the_picture_and_its_mirror_image(colours):
    """Of a head that is blind on one side, at a size that needs central padding."""
    picture = torch.rand(3, 20, 32)

    class Head(torch.nn.Module):
        def forward(self, patches):
            side = torch.tensor([1.0, 1.0, 0.0, 0.0])
            return patches[:, :1] * side

    found = _mirrored_mean(colours, Head(), picture, 2 / 3)
    framed = torch.zeros(3, 24, 32)
    framed[:, 2:22] = picture
    cells = framed[0].unflatten(0, (3, 8)).unflatten(2, (4, 8)).mean((1, 3))
    one = torch.nn.functional.interpolate((cells * torch.tensor([1.0, 1, 0, 0]))[None, None], (24, 32), mode="bilinear")
    other = torch.nn.functional.interpolate(
        (cells * torch.tensor([0.0, 0, 1, 1]))[None, None], (24, 32), mode="bilinear"
    )
    torch.testing.assert_close(found, ((one + other) / 2)[0, :, 2:22])


def test_an_encoder_with_one_size_sees_windows_of_it(colour_encoder):
    encoder = colour_encoder(native_size=(16, 16))
    data = DepthData(grey_is_far(4, 0), grey_is_far(2, 1), low=0.5, high=6.0)
    assert depth.run(FeatureBank(encoder), data, **SMALL, steps=2)["RMSE"] > 0
    assert encoder.sizes_seen == {(16, 16)}


def test_depth_beyond_the_bins_is_not_measured_by_the_published_protocol(colours):
    val = grey_is_far(2, 1)
    data = DepthData(grey_is_far(4, 0), DensePictures(val.pictures, val.labels * 0 + 6), low=0.5, high=6.0)
    with pytest.raises(ValueError, match="measured"):
        depth.run(FeatureBank(colours), data, **SMALL, steps=1)


def test_options_of_the_other_schedule_are_refused(colours):
    data = DepthData(grey_is_far(2, 0), grey_is_far(2, 1))
    with pytest.raises(ValueError, match="train_mode: only for schedule=published"):
        depth.run(FeatureBank(colours), data, learning_rate=0.01, train_mode=True)
