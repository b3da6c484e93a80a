"""The graph passes, on networks of a few lines: what comes out must compute the same and hold less."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eyespot.deploy.simplify import simplify
from eyespot.randomness import torch_generator

SIZE = (8, 8)


def simplified(module, *images, dynamic=None):
    module = module.eval().requires_grad_(False)
    program = torch.export.export(module, images, dynamic_shapes=dynamic)
    graph = simplify(program)
    with torch.no_grad():
        for ours, theirs in zip(as_tuple(graph(*images)), as_tuple(module(*images)), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    return graph


def as_tuple(value):
    return value if isinstance(value, tuple | list) else (value,)


def operators(graph):
    return Counter(str(node.target).split(".")[1] for node in graph.graph.nodes if node.op == "call_function")


def pictures(*shape):
    return torch.rand(*shape, generator=torch_generator("pictures", *shape))


def with_statistics(module):
    """Batch norms as after training: none of their numbers is 0 or 1."""
    generator = torch_generator("statistics")
    for norm in (part for part in module.modules() if isinstance(part, nn.BatchNorm2d)):
        norm.running_mean = torch.randn(norm.num_features, generator=generator)
        norm.running_var = 0.5 + torch.rand(norm.num_features, generator=generator)
        if norm.affine:
            norm.weight.data = torch.randn(norm.num_features, generator=generator)
            norm.bias.data = torch.randn(norm.num_features, generator=generator)
    return module


class Positions(nn.Module):
    """A sine table of the grid, as in RoPE: it depends on the size alone."""

    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(3, 4)

    def forward(self, images):
        places = torch.arange(images.shape[-1], dtype=torch.float32)
        table = torch.sin(places[:, None] * torch.linspace(1, 2, 4)) + torch.cos(places[:, None])
        return self.proj(images.movedim(1, -1)) * table


def test_what_depends_on_the_size_alone_is_a_constant():
    graph = simplified(Positions(), pictures(1, 3, *SIZE))
    assert not {"sin", "cos", "arange", "linspace"} & set(operators(graph))


def test_what_depends_on_an_open_size_is_computed():
    dynamic = {"images": {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}}
    graph = simplified(Positions(), pictures(1, 3, *SIZE), dynamic=dynamic)
    assert {"sin", "cos"} <= set(operators(graph))
    images = pictures(1, 3, 12, 20)
    module = Positions()
    module.load_state_dict({name: dict(graph.named_parameters())[name] for name in ("proj.weight", "proj.bias")})
    torch.testing.assert_close(as_tuple(graph(images))[0], module(images))


class Standardised(nn.Conv2d):
    """A convolution that standardises its weight in every pass (BiT, NFNet)."""

    def forward(self, images):
        flat = self.weight.flatten(1)
        weight = F.batch_norm(flat[None], None, None, training=True)[0].view_as(self.weight)
        return F.conv2d(images, weight, self.bias)


def test_a_weight_that_is_computed_keeps_its_name():
    graph = simplified(nn.Sequential(Standardised(3, 4, 3)), pictures(1, 3, *SIZE))
    assert operators(graph) == {"conv2d": 1}
    convolution = next(node for node in graph.graph.nodes if node.op == "call_function")
    assert convolution.args[1].target == "0.weight"


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norms_go_into_their_convolutions(bias, affine):
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=bias, padding=1), nn.BatchNorm2d(4, affine=affine, eps=1e-3), nn.ReLU(inplace=True)
    )
    graph = simplified(with_statistics(module), pictures(2, 3, *SIZE))
    assert operators(graph) == {"conv2d": 1, "relu": 1}
    assert "0.weight" in {node.target for node in graph.graph.nodes}


class SharedConvolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.first, self.second = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, images):
        return self.first(self.conv(images)), self.second(self.conv(1 - images))


class NormAndPlain(SharedConvolution):
    def forward(self, images):
        found = self.conv(images)
        return self.first(found), found


@pytest.mark.parametrize(("kind", "norms"), [(SharedConvolution, 0), (NormAndPlain, 1)])
def test_a_convolution_that_serves_twice_stays_right(kind, norms):
    graph = simplified(with_statistics(kind()), pictures(2, 3, *SIZE))  # gives what the module gives
    # Each use has weights of its own after folding; what is also asked for without its norm is not folded.
    assert sum("batch_norm" in str(node.target) for node in graph.graph.nodes) == norms


def test_nothing_is_left_of_training():
    module = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(3, 4, 1), nn.Dropout2d(0.5), nn.ReLU(inplace=True))
    assert operators(simplified(module, pictures(1, 3, *SIZE))) == {"conv2d": 1, "relu": 1}


class InPlace(nn.Module):
    def forward(self, images):
        one = images * 2
        two = one.view(images.shape[0], -1)
        one.add_(1)
        return two, one.relu_()


def test_changes_in_place_reach_all_who_look_at_the_same_memory():
    graph = simplified(InPlace(), pictures(1, 3, *SIZE) - 0.5)
    assert not [node for node in graph.graph.nodes if "_." in str(node.target).replace("aten.", "")]


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(8, 8)

    def forward(self, images):
        return self.body(images).relu(), self.body(images).sigmoid()


def test_what_is_said_twice_is_computed_once():
    assert operators(simplified(Twice(), pictures(1, 3, *SIZE)))["linear"] == 1


def test_channels_last_is_left_to_the_runtime():
    class Moved(nn.Module):
        def forward(self, images):
            return images.contiguous(memory_format=torch.channels_last).view(1, -1, 8).relu()

    images = pictures(1, 1, *SIZE)
    assert set(operators(simplified(Moved(), images))) == {"reshape", "relu"}
