import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eyespot.distill.features.heads import AdapterHead, TeacherAdapter
from eyespot.features import Features


@pytest.mark.parametrize(("width", "hidden", "out"), [(192, 3072, 1536), (7, 5, 3), (384, 1536, 1280)])
def test_layers_and_parameter_count(width, hidden, out):
    """EUPE A.2: linear without bias, LayerNorm, GELU, linear without bias."""
    with torch.device("meta"):
        head = AdapterHead(width, hidden, out)
    assert [type(layer) for layer in head] == [nn.Linear, nn.LayerNorm, nn.GELU, nn.Linear]
    assert head[0].bias is None and head[3].bias is None
    assert sum(weight.numel() for weight in head.parameters()) == width * hidden + 2 * hidden + hidden * out


def test_forward_by_hand():
    head = AdapterHead(3, 4, 2)
    nn.init.normal_(head[1].weight)
    nn.init.normal_(head[1].bias)
    values = torch.randn(5, 3)
    hidden = values @ head[0].weight.T
    hidden = (hidden - hidden.mean(1, keepdim=True)) / (hidden.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    hidden = hidden * head[1].weight + head[1].bias
    gelu = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    torch.testing.assert_close(head(values), gelu @ head[3].weight.T)


def test_two_heads_per_teacher_and_nothing_shared():
    adapter = TeacherAdapter((6, 5), 16, (4, 3))
    summary = 6 * 16 + 2 * 16 + 16 * 4
    patch = 5 * 16 + 2 * 16 + 16 * 3
    weights = list(adapter.parameters())
    assert sum(weight.numel() for weight in weights) == summary + patch
    assert len({weight.data_ptr() for weight in weights}) == len(weights)


@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (1, 1)])
def test_every_patch_goes_through_the_same_head_on_its_own(grid):
    adapter = TeacherAdapter((6, 5), 8, (4, 3))
    features = Features(torch.randn(2, 6), torch.randn(2, 5, *grid))
    adapted = adapter(features)
    assert adapted.summary.shape == (2, 4) and adapted.patches.shape == (2, 3, *grid)
    torch.testing.assert_close(adapted.summary, adapter.summary(features.summary))
    for row in range(grid[0]):
        for column in range(grid[1]):
            torch.testing.assert_close(
                adapted.patches[:, :, row, column], adapter.patch(features.patches[:, :, row, column])
            )


def test_summary_and_patches_do_not_mix():
    adapter = TeacherAdapter((6, 5), 8, (4, 3))
    features = Features(torch.randn(2, 6), torch.randn(2, 5, 2, 2))
    F.mse_loss(adapter(features).patches, torch.zeros(2, 3, 2, 2)).backward()
    assert all(weight.grad is None for weight in adapter.summary.parameters())
    assert all(weight.grad is not None for weight in adapter.patch.parameters())
