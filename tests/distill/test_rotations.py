import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eyespot.distill.features.rotations import balancing_rotation, hadamard

KNOWN = [1, 2, 4, 8, 12, 16, 20, 24, 32, 48, 60, 64, 72, 80, 128, 192, 256, 320, 384, 768, 1280]
UNKNOWN = [3, 5, 6, 7, 9, 10, 92, 100, 191]


@pytest.mark.parametrize("order", KNOWN)
def test_hadamard_matrices(order):
    matrix = hadamard(order)
    assert matrix is not None and matrix.shape == (order, order)
    assert torch.equal(matrix.abs(), torch.ones(order, order, dtype=torch.float64))
    assert torch.equal(matrix @ matrix.T, order * torch.eye(order, dtype=torch.float64))


@pytest.mark.parametrize("order", UNKNOWN)
def test_widths_for_which_there_is_none_here(order):
    assert hadamard(order) is None


def check(eigenvalues):
    rotation = balancing_rotation(eigenvalues)
    width = len(eigenvalues)
    identity = torch.eye(width, dtype=torch.float64)
    torch.testing.assert_close(rotation @ rotation.T, identity, rtol=0, atol=1e-10)
    balanced = (rotation * eigenvalues @ rotation.T).diagonal()
    scale = eigenvalues.abs().max().item() or 1.0
    torch.testing.assert_close(balanced / scale, (eigenvalues.mean() / scale).expand(width), rtol=0, atol=1e-9)


@pytest.mark.parametrize("width", [1, 2, 3, 5, 7, 12, 16, 33, 100, 191, 192])
def test_any_spectrum_is_balanced_at_any_width(width):
    generator = torch.Generator().manual_seed(width)
    check(torch.rand(width, dtype=torch.float64, generator=generator))
    check(10 ** (-8 * torch.rand(width, dtype=torch.float64, generator=generator)))
    check(torch.eye(width, dtype=torch.float64)[0])  # all variance in one direction
    check(torch.ones(width, dtype=torch.float64))
    check(torch.zeros(width, dtype=torch.float64))
    check(torch.linspace(0, 1, width, dtype=torch.float64) // 0.5)
    check(1e-293 * torch.eye(width, dtype=torch.float64)[0])  # squares of it vanish


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(0, 1e6, allow_nan=False), min_size=1, max_size=14))
def test_whatever_the_spectrum(values):
    check(torch.tensor(values, dtype=torch.float64))
