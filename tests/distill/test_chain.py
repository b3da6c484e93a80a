import pytest
import torch

from eyespot.distill.committee import Committee
from eyespot.distill.features.chain import AdapterChain, find_route, routes, width_of
from eyespot.distill.features.feature_distillation import FeatureDistillation
from eyespot.features import Features
from toy_encoders import ToyEncoder


def distilled(student, teachers, standardizer="channel"):
    """A student with adapters into its teachers, statistics estimated on noise."""
    task = FeatureDistillation(
        student, Committee(teachers), adapter_width=11, student_sizes=(32,), standardizer=standardizer
    )
    noise = torch.Generator().manual_seed(0)
    task.prepare({"images": torch.rand(16, 3, 32, 32, generator=noise), "step": step} for step in range(3))
    student.adapters = {name: value.clone() for name, value in task.adapters().items()}
    return task


TEACHERS = {"clip": dict(summary_dim=7, patch_dim=4), "depth": dict(summary_dim=3, patch_dim=9, stride=16)}


def two_hops(first="channel", second="channel"):
    """A student of a proxy that learned from two teachers, and that proxy."""
    proxy = ToyEncoder("proxy", summary_dim=8, patch_dim=10)
    distilled(proxy, {name: ToyEncoder(name, **dims) for name, dims in TEACHERS.items()}, first)
    student = ToyEncoder("student")
    distilled(student, {"proxy": proxy}, second)
    return student, proxy


def test_a_student_of_a_proxy_knows_every_way_of_the_proxy():
    student, proxy = two_hops()
    assert routes(proxy.adapters) == [("clip",), ("depth",)]
    assert routes(student.adapters) == [("proxy",), ("proxy", "clip"), ("proxy", "depth")]
    assert find_route(student.adapters, "clip") == find_route(student.adapters, "proxy/clip") == ("proxy", "clip")
    assert [width_of(student.adapters, route) for route in routes(student.adapters)] == [8, 7, 3]
    assert routes({}) == []


@pytest.mark.parametrize("kinds", [("channel", "phi_s"), ("none", "channel"), ("ema", "none")])
@torch.no_grad()
def test_two_hops_are_head_and_inverse_twice(kinds):
    """By hand: head, undo the standardizer, head, undo the standardizer; summaries (at standard length) and patches."""
    proxy = ToyEncoder("proxy", summary_dim=8, patch_dim=10)
    first = distilled(proxy, {"clip": ToyEncoder("clip", **TEACHERS["clip"])}, kinds[0])
    student = ToyEncoder("student")
    second = distilled(student, {"proxy": proxy}, kinds[1])
    features = student.eval()(torch.rand(2, 3, 32, 48))
    for task in (first.eval(), second.eval()):
        assert not task.training
    expected = second.standardizers["proxy"].inverse(
        at_standard_length(second.learners["student"].heads["proxy"](features))
    )
    expected = first.standardizers["clip"].inverse(
        at_standard_length(first.learners["student"].heads["clip"](expected))
    )
    found = AdapterChain(student.adapters, ("proxy", "clip"))(features)
    assert found.grid == features.grid
    torch.testing.assert_close(found.summary, expected.summary)
    torch.testing.assert_close(found.patches, expected.patches)


def at_standard_length(features):
    width = features.summary.shape[1]
    return Features(features.summary / features.summary.norm(dim=1, keepdim=True) * width**0.5, features.patches)


@torch.no_grad()
def test_standardized_summaries_have_that_length_on_average():
    """Why the root of the width: every channel has variance one."""
    student, teacher = ToyEncoder("student"), ToyEncoder("clip", **TEACHERS["clip"]).eval()
    task = distilled(student, {"clip": teacher})
    target = task.standardizers["clip"](
        teacher(torch.rand(400, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    ).summary
    assert target.square().sum(1).mean() == pytest.approx(7, rel=0.3)


@torch.no_grad()
def test_a_perfect_student_arrives_at_the_teachers_own_features():
    """A head that predicts the standardized target exactly, then the inverse: the teacher's features, scale and all."""
    teacher = ToyEncoder("clip", **TEACHERS["clip"]).eval()
    student = ToyEncoder("student")
    task = distilled(student, {"clip": teacher})
    target = teacher(torch.rand(4, 3, 32, 32))
    exact = task.standardizers["clip"](target)
    chain = AdapterChain(student.adapters, ("clip",))
    torch.testing.assert_close(chain.summary[0].standardizer.inverse(exact.summary), target.summary)
    torch.testing.assert_close(chain.patch[0].standardizer.inverse(exact.patches), target.patches)


@pytest.mark.parametrize(
    ("space", "says"),
    [("dino", "no adapters lead to 'dino'; there are proxy, proxy/clip"), ("depth/clip", "no adapters")],
)
def test_an_unknown_space_is_answered_with_those_there_are(space, says):
    student, _ = two_hops()
    with pytest.raises(ValueError, match=says):
        find_route(student.adapters, space)
    with pytest.raises(ValueError, match="no adapters lead to"):
        AdapterChain(student.adapters, tuple(space.split("/")))


def test_a_name_that_several_ways_end_in_must_be_given_whole():
    head = torch.zeros(2, 3)
    names = ("through.a.heads.clip", "through.b.heads.clip")
    adapters = {f"{name}.summary.3.weight": head for name in names}
    with pytest.raises(ValueError, match="several adapters lead to 'clip'; there are a/clip, b/clip"):
        find_route(adapters, "clip")
    assert find_route(adapters, "b/clip") == ("b", "clip")


@pytest.mark.parametrize("spoil", ["0.weight", "1.bias", "3.weight"])
def test_damaged_adapters_are_refused(spoil):
    student, _ = two_hops()
    broken = {name: value for name, value in student.adapters.items() if name != f"heads.proxy.summary.{spoil}"}
    with pytest.raises(ValueError, match=r"make no adapter|missing 1\.bias"):
        AdapterChain(broken, ("proxy",))


def test_half_a_standardizer_is_refused():
    student, _ = two_hops()
    broken = {name: value for name, value in student.adapters.items() if name != "standardizers.proxy.summary.std"}
    with pytest.raises(ValueError, match="make no adapter"):
        AdapterChain(broken, ("proxy",))


def test_features_keep_their_batch_and_grid():
    student, _ = two_hops()
    features = Features(torch.rand(3, 6), torch.rand(3, 5, 2, 4))
    moved = AdapterChain(student.adapters, ("proxy", "depth"))(features)
    assert moved.summary.shape == (3, 3) and moved.patches.shape == (3, 9, 2, 4)
    assert not moved.summary.requires_grad
