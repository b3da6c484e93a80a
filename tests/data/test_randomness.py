"""Seeds of the global generators."""

import random

import numpy as np
import pytest
import torch

from eyespot.randomness import numpy_generator, seed_everything, seed_of


def draws():
    return random.random(), np.random.rand(), torch.rand(()).item()


def test_the_global_generators_follow_the_keys():
    seed_everything(3, "step", 7)
    first = draws()
    seed_everything(3, "step", 8)
    others = draws()
    seed_everything(3, "step", 7)
    assert draws() == first
    assert all(one != other for one, other in zip(first, others, strict=True))


def test_torch_is_seeded_as_by_torch_itself():
    seed_everything("a", 1)
    seeded = torch.rand(5)
    torch.manual_seed(seed_of("a", 1))
    assert torch.equal(torch.rand(5), seeded)
    assert torch.initial_seed() == seed_of("a", 1)


@pytest.mark.parametrize("keys", [(0,), ("view", 3, 2**40, 0), (2**63 - 1, "order")])
def test_generators_are_those_of_philox(keys):
    ours, philox = numpy_generator(*keys), np.random.Generator(np.random.Philox(key=seed_of(*keys)))
    assert np.array_equal(ours.random(100), philox.random(100))
    assert np.array_equal(ours.permutation(100), philox.permutation(100))
