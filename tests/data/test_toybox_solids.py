"""The solids' rays and normals against implicit functions, which are negative inside and positive outside."""

import pytest
import torch

from eyespot.data.toybox import SHAPES, solids

STRAIGHT = 0.7


def implicit(shape: str, x, y, z):
    rho = (x * x + y * y).sqrt()
    square = torch.maximum(x.abs(), y.abs())
    if shape == "sphere":
        return (x * x + y * y + z * z).sqrt() - 1
    if shape == "box":
        return torch.maximum(square, z.abs()) - 1
    if shape == "cylinder":
        return torch.maximum(rho, z.abs()) - 1
    if shape == "cone":
        return torch.maximum(rho - (1 - z) / 2, -1 - z)
    if shape == "pyramid":
        return torch.maximum(square - (1 - z) / 2, -1 - z)
    return (x * x + y * y + (z - z.clamp(-STRAIGHT, STRAIGHT)) ** 2).sqrt() - 1


@pytest.fixture(scope="module")
def rays():
    generator = torch.Generator().manual_seed(0)
    count = 4000
    aim = torch.rand(count, 3, generator=generator) * 2.6 - 1.3
    away = torch.randn(count, 3, generator=generator)
    origin = aim + 4 * away / away.norm(dim=1, keepdim=True)
    return origin, (aim - origin) * 0.5


@pytest.fixture(scope="module", params=range(len(SHAPES)), ids=SHAPES)
def crossing(request, rays):
    origin, direction = rays
    straight = torch.full((len(origin),), STRAIGHT)
    enter, leave = solids.interval(request.param, origin.unbind(1), direction.unbind(1), straight)
    return request.param, enter, leave


def at(rays, t):
    origin, direction = rays
    return (origin.double() + t.double()[:, None] * direction.double()).unbind(1)


def test_ends_lie_on_the_surface_and_the_middle_inside(crossing, rays):
    shape, enter, leave = crossing
    hit = enter < leave - 1e-3
    assert 0.2 < hit.float().mean() < 1
    for t in (enter, leave):
        assert implicit(SHAPES[shape], *at(rays, t))[hit].abs().max() < 1e-4
    assert (implicit(SHAPES[shape], *at(rays, (enter + leave) / 2))[hit] < 0).all()


def test_nothing_of_the_solid_lies_outside_the_interval(crossing, rays):
    shape, enter, leave = crossing
    missed = enter > leave
    for t in torch.linspace(0, 4, 201):
        inside = implicit(SHAPES[shape], *at(rays, t.expand(len(enter)))) < -1e-4
        assert not (inside & (missed | (t < enter - 1e-3) | (t > leave + 1e-3))).any()


def test_normals_are_the_gradient_of_the_implicit_function(crossing, rays):
    shape, enter, leave = crossing
    hit = enter < leave - 1e-2
    if SHAPES[shape] in ("cone", "pyramid"):
        hit &= at(rays, enter)[2] > -0.999  # they stand on their base, which has no normal here
    points = [component[hit].requires_grad_() for component in at(rays, enter)]
    gradient = torch.stack(torch.autograd.grad(implicit(SHAPES[shape], *points).sum(), points), 1)
    straight = torch.full((int(hit.sum()),), STRAIGHT)
    found = torch.stack(solids.normal(shape, tuple(p.detach().float() for p in points), straight), 1).double()
    cosine = torch.nn.functional.cosine_similarity(found, gradient)
    # A point on an edge has two normals; a few rays in a thousand come that close.
    assert (cosine > 0.9999).float().mean() > 0.99
