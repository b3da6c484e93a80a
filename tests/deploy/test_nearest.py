import itertools

import torch
import torch.nn.functional as F
from torch import nn

from eyespot.deploy.formats.nearest import REWRITES, enlarge


def test_sizes_pick_the_same_pixels_as_torch():
    for before, after in itertools.product(range(1, 12), range(1, 40)):
        images = torch.rand(1, 2, before, 2 * before)
        found = enlarge(images, [after, after], None)
        if found is not NotImplemented:
            assert torch.equal(found, F.interpolate(images, (after, after))), (before, after)


def test_factors_pick_the_same_pixels_as_torch():
    for before, factor in itertools.product(range(1, 12), (1.25, 1.5, 1.6, 2.05, 7 / 3, 3.05, 3.15)):
        images = torch.rand(1, 2, before, 2 * before)
        found = enlarge(images, None, [factor, 1.1])
        if found is not NotImplemented:
            assert torch.equal(found, F.interpolate(images, scale_factor=(factor, 1.1))), (before, factor)


def test_whole_factors_stay_with_the_operator():
    assert enlarge(torch.rand(1, 1, 3, 4), [6, 12], None) is NotImplemented
    assert enlarge(torch.rand(1, 1, 3, 4), None, [2.0, 3.0]) is NotImplemented
    assert enlarge(torch.rand(1, 1, 3, 4), None, [2.0, 3.05]) is not NotImplemented
    assert enlarge(torch.rand(1, 1, 3, 4), [6, 7], None) is not NotImplemented


class Enlarged(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, images):
        return F.interpolate(images, self.size)


def test_programs_are_rewritten_where_they_must_be():
    images = torch.rand(1, 2, 3, 3)
    for size, kept in (((7, 7), 0), ((6, 6), 1)):
        program = torch.export.export(Enlarged(size), (images,)).run_decompositions(REWRITES)
        operators = [str(node.target) for node in program.graph.nodes]
        assert sum("upsample" in operator for operator in operators) == kept
        assert torch.equal(program.module()(images), F.interpolate(images, size))
