import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from eyespot.distill.features.losses import FeatureLoss, cosine_loss, match_grids
from eyespot.features import Features

LOSS = FeatureLoss()


def as_map(vectors):
    """Vectors [N, D] as one map [1, D, 1, N]."""
    return torch.tensor(vectors).T[None, :, None]


def test_cosine_by_hand():
    """EUPE eq. 4: 1 - cos. Angles of 45 and 180 degrees, whatever the lengths."""
    prediction = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    target = torch.tensor([[5.0, 5.0], [0.0, -7.0]])
    wanted = ((1 - math.sqrt(0.5)) + 2) / 2
    assert LOSS.summaries(prediction, target).item() == pytest.approx(wanted, abs=1e-6)
    assert wanted == pytest.approx(1.146447, abs=1e-6)


def test_patch_loss_by_hand():
    """EUPE eq. 5: 0.9 cosine + 0.1 smooth-L1 with threshold 1, averaged over patches and channels.

    Patch 1: (3, 4) against (4, 3), cosine 24/25, differences 1 and 1 -> 0.5 each (where both branches meet).
    Patch 2: (1, 0) against (1, 0.5): cosine 1/sqrt(1.25), differences 0 -> 0 and 0.5 -> 0.125.
    Patch 3: (0, 2) against (0, -1): cosine -1, differences 0 -> 0 and 3 -> 2.5.
    """
    prediction, target = as_map([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0]]), as_map([[4.0, 3.0], [1.0, 0.5], [0.0, -1.0]])
    cosine = ((1 - 24 / 25) + (1 - 1 / math.sqrt(1.25)) + 2) / 3
    smooth_l1 = (0.5 + 0.5 + 0 + 0.125 + 0 + 2.5) / 6
    wanted = 0.9 * cosine + 0.1 * smooth_l1
    assert wanted == pytest.approx(0.704089, abs=1e-6)
    assert LOSS.patches(prediction, target).item() == pytest.approx(wanted, abs=1e-6)


def test_against_numpy_on_random_values():
    rng = np.random.default_rng(0)
    prediction, target = rng.normal(size=(2, 4, 7, 3, 5)) * 1.5

    def cosine(axis_last_one, axis_last_other):
        dot = (axis_last_one * axis_last_other).sum(-1)
        return 1 - dot / np.linalg.norm(axis_last_one, axis=-1) / np.linalg.norm(axis_last_other, axis=-1)

    difference = np.abs(prediction - target)
    smooth_l1 = np.where(difference < 1, 0.5 * difference**2, difference - 0.5).mean()
    wanted = 0.9 * cosine(np.moveaxis(prediction, 1, -1), np.moveaxis(target, 1, -1)).mean() + 0.1 * smooth_l1
    given = LOSS.patches(torch.from_numpy(prediction), torch.from_numpy(target))
    assert given.item() == pytest.approx(wanted, abs=1e-6)


def test_bounds_and_zero():
    values = torch.randn(3, 8)
    assert cosine_loss(values, 2 * values).item() == pytest.approx(0, abs=1e-6)
    assert cosine_loss(values, -values).item() == pytest.approx(2, abs=1e-6)
    maps = torch.randn(2, 4, 3, 3)
    assert LOSS.patches(maps, maps).item() == pytest.approx(0, abs=1e-6)


def test_zero_vectors_give_finite_losses_and_gradients():
    prediction = torch.zeros(2, 4, 3, 3, requires_grad=True)
    loss = LOSS.patches(prediction, torch.zeros(2, 4, 3, 3))
    loss.backward()
    assert loss.isfinite() and prediction.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_float32_whatever_comes_in_and_around(dtype, autocast):
    prediction = Features(torch.randn(2, 6).to(dtype), torch.randn(2, 5, 4, 4).to(dtype))
    target = Features(torch.randn(2, 6), torch.randn(2, 5, 2, 2))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        given = LOSS(prediction, target)
    exact = prediction.float()
    resized = F.interpolate(target.patches, size=(4, 4), mode="bicubic", align_corners=False)
    wanted = (LOSS.summaries(exact.summary, target.summary), LOSS.patches(exact.patches, resized))
    for one, other in zip(given, wanted, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("student", "teacher", "grid"),
    [
        ((4, 4), (4, 4), (4, 4)),
        ((2, 2), (7, 7), (7, 7)),
        ((8, 8), (3, 3), (8, 8)),
        ((2, 3), (4, 6), (4, 6)),
        ((5, 2), (3, 4), (5, 4)),
    ],
    ids=["equal", "student smaller", "teacher smaller", "not square", "crossed"],
)
def test_the_smaller_grid_is_upsampled_bicubically(student, teacher, grid):
    """EUPE A.5; where each side has its own larger one, both are resized."""
    prediction, target = torch.randn(2, 3, *student), torch.randn(2, 3, *teacher)
    for given, source in zip(match_grids(prediction, target), (prediction, target), strict=True):
        if source.shape[2:] == grid:
            assert given is source
        else:
            wanted = F.interpolate(source, size=grid, mode="bicubic", align_corners=False, antialias=False)
            torch.testing.assert_close(given, wanted)


@pytest.mark.parametrize("length", [1.0, 1e-6, 1e4])
def test_cosine_and_its_gradient_are_those_of_pytorch(length):
    torch.manual_seed(0)
    ours = (length * torch.randn(2, 5, 3, 3)).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    target = torch.randn(2, 5, 3, 3)
    given = cosine_loss(ours, target)
    wanted = (1 - F.cosine_similarity(theirs, target, dim=1)).mean()
    torch.testing.assert_close(given, wanted)
    given.backward()
    wanted.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


def test_gradients_reach_a_student_with_the_coarser_grid():
    prediction = Features(torch.randn(1, 4, requires_grad=True), torch.randn(1, 3, 2, 2, requires_grad=True))
    losses = LOSS(prediction, Features(torch.randn(1, 4), torch.randn(1, 3, 7, 7)))
    sum(losses).backward()
    assert prediction.summary.grad.abs().sum() > 0 and prediction.patches.grad.abs().sum() > 0
