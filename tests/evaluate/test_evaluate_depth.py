import math

import pytest
import torch

from eyespot.evaluate import FeatureBank, depth
from eyespot.evaluate.datasets import DensePictures, DepthData, TensorPictures
from eyespot.evaluate.depth import BinnedDepth, depth_errors, scale_invariant_log_loss


def test_errors_by_hand_with_missing_measurements():
    truth = torch.tensor([[1.0, 2.0], [0.0, 4.0]])
    found = depth_errors(torch.tensor([[1.0, 3.0], [9.0, 3.9]]), truth)
    assert found["RMSE"] == pytest.approx(math.sqrt((0 + 1 + 0.01) / 3))
    assert found["AbsRel"] == pytest.approx((0 + 0.5 + 0.025) / 3)
    assert found["delta1"] == pytest.approx(2 / 3)
    assert depth_errors(truth, torch.zeros(2, 2)) is None


def test_delta1_is_strict_and_symmetric():
    truth = torch.full((3,), 4.0)
    assert depth_errors(torch.tensor([5.0, 4.0 / 1.24, 4.0 / 1.26]), truth)["delta1"] == pytest.approx(1 / 3)


def test_loss_by_hand():
    truth = torch.tensor([[1.0, 2.0, 0.0, 4.0]])
    found = torch.tensor([[2.0, 2.0, 5.0, 2.0]])
    ratios = torch.tensor([math.log(2), 0.0, -math.log(2)])
    wanted = math.sqrt(ratios.var() + 0.15 * ratios.mean() ** 2)
    assert scale_invariant_log_loss(found, truth).item() == pytest.approx(wanted)


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
        depth.run(FeatureBank(colours), data, steps=2)
