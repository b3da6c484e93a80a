import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eyespot.distill.classes.config import MethodSettings
from eyespot.distill.classes.feature_hints import angle_loss, as_map, distance_loss, neighbour_correlation, on_grid_of
from eyespot.distill.classes.methods import make_method
from eyespot.distill.classes.outputs import ClassifierOutput, OutputShape
from eyespot.features import resize_map

OURS = torch.tensor([[1.0, 0, 2], [0, 1, 1], [2, 2, 0]])
THEIRS = torch.tensor([[1.0, 1], [0, 2], [3, 0]])


def method_and_terms(name, student, teacher, shapes, settings=None):
    """The terms of a method for two outputs without classes."""
    method = make_method(name, settings or MethodSettings(), *shapes, 10)
    batch = len(student.summary)
    return method, method(student, teacher, torch.zeros(batch).long(), torch.arange(batch))


def summaries(values):
    return ClassifierOutput(torch.zeros(len(values), 0), values)


def test_rkd_as_in_the_authors_code():
    """`ofakd.md`, section (h)."""
    shapes = (OutputShape(0, 3), OutputShape(0, 2))
    _, terms = method_and_terms("rkd", summaries(OURS), summaries(THEIRS), shapes)
    assert sum(terms.values()).item() == pytest.approx(6.598725, abs=1e-6)
    assert terms["rkd_distance"].item() == pytest.approx(25 * distance_loss(OURS, THEIRS).item())
    assert terms["rkd_angle"].item() == pytest.approx(50 * angle_loss(OURS, THEIRS).item())


def test_rkd_by_hand():
    """A 3-4-5 triangle against an equilateral one: distances over their mean, and cosines of the angles."""
    ours = torch.tensor([[0.0, 0], [3, 0], [0, 4]])
    theirs = torch.tensor([[0.0, 0], [1, 0], [0.5, math.sqrt(0.75)]])
    assert distance_loss(ours, theirs).item() == pytest.approx(2 * (0.25**2 / 2 + 0 + 0.25**2 / 2) / 9, abs=1e-6)
    differences = [abs(cosine - 0.5) for cosine in (0.0, 0.6, 0.8)]
    assert angle_loss(ours, theirs).item() == pytest.approx(2 * sum(d * d / 2 for d in differences) / 27, abs=1e-6)


def test_rkd_forgets_scale_place_and_rotation():
    torch.manual_seed(0)
    theirs = torch.randn(6, 4)
    rotation = torch.linalg.qr(torch.randn(4, 4))[0]
    ours = 3 * theirs @ rotation + 5
    assert distance_loss(ours, theirs).item() == pytest.approx(0, abs=1e-6)
    assert angle_loss(ours, theirs).item() == pytest.approx(0, abs=1e-6)


def test_equal_pictures_have_finite_gradients():
    ours = torch.ones(4, 3, requires_grad=True)
    (distance_loss(ours, torch.randn(4, 2)) + angle_loss(ours, torch.randn(4, 2))).backward()
    assert ours.grad.isfinite().all()


def test_cc_by_hand():
    ours, theirs = torch.tensor([[1.0, 2], [0, 0], [3, 1]]), torch.tensor([[0.0, 0], [1, -1], [1, 1]])
    assert neighbour_correlation(ours, theirs).item() == ((1 * 1 + 2 * 1) + (1 * 2 + 1 * 0)) / 2
    assert neighbour_correlation(ours[:1], theirs[:1]).item() == 0


def test_cc_through_its_own_space():
    method, terms = method_and_terms("cc", summaries(OURS), summaries(THEIRS), (OutputShape(0, 3), OutputShape(0, 2)))
    spaces = method.student_embedding(OURS), method.teacher_embedding(THEIRS)
    assert [space.shape[1] for space in spaces] == [128, 128]
    torch.testing.assert_close(terms["cc"], 0.02 * neighbour_correlation(*spaces))


def test_tokens_as_map():
    """Row by row, without what stands in front."""
    tokens = torch.arange(10.0).view(1, 10, 1)
    assert as_map(tokens, 1)[0, 0].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    maps = torch.randn(2, 3, 4, 5)
    assert as_map(maps, 1) is maps
    with pytest.raises(ValueError, match="square"):
        as_map(tokens, 0)


@pytest.mark.parametrize(("ours", "theirs"), [((8, 8), (4, 4)), ((4, 4), (8, 8)), ((7, 7), (4, 4)), ((8, 2), (4, 4))])
def test_on_the_teachers_grid(ours, theirs):
    """Averaged where the student's grid is finer, bicubic where it is coarser; the order of that and the convolution
    does not matter."""
    regressor = nn.Conv2d(3, 5, 1, bias=False)
    maps, target = torch.randn(2, 3, *ours), torch.randn(2, 5, *theirs)
    given = on_grid_of(target, maps, regressor)
    averaged = F.adaptive_avg_pool2d(regressor(maps), (min(ours[0], theirs[0]), min(ours[1], theirs[1])))
    torch.testing.assert_close(given, resize_map(averaged, theirs))
    assert given.shape == target.shape


def test_fitnet_among_equals():
    """Where the convolutions are identities and the features equal there is nothing left to learn."""
    shape = OutputShape(0, 3, ((4, 8, 8), (4, 4, 4), (6, 4, 4), (8, 2, 2)))
    seen = ClassifierOutput(torch.zeros(2, 0), torch.randn(2, 3), tuple(torch.randn(2, *tap) for tap in shape.taps))
    method = make_method("fitnet", MethodSettings(), shape, shape, 10)
    for regressor in method.regressors:
        assert regressor.bias is None and regressor.kernel_size == (1, 1)
        nn.init.dirac_(regressor.weight)
    terms = method(seen, seen, torch.zeros(2).long(), torch.arange(2))
    assert terms["fitnet"].item() == pytest.approx(0, abs=1e-10)


def test_fitnet_sums_the_errors_of_the_chosen_stages():
    ours = OutputShape(0, 3, ((4, 8, 8), (4, 4, 4), (6, 4, 4), (8, 2, 2)))
    theirs = OutputShape(0, 3, ((17, 5),) * 4, prefix_tokens=1)
    outputs = [
        ClassifierOutput(torch.zeros(2, 0), torch.randn(2, 3), tuple(torch.randn(2, *tap) for tap in shape.taps))
        for shape in (ours, theirs)
    ]
    method, terms = method_and_terms("fitnet", *outputs, (ours, theirs), MethodSettings(stages=(1, 4), weight=2.0))
    assert [tuple(regressor.weight.shape[:2]) for regressor in method.regressors] == [(5, 4), (5, 8)]
    wanted = 0.0
    for stage, regressor in zip((0, 3), method.regressors, strict=True):
        target = outputs[1].taps[stage][:, 1:].transpose(1, 2).reshape(2, 5, 4, 4)
        maps = regressor(outputs[0].taps[stage])
        maps = F.avg_pool2d(maps, 2) if stage == 0 else resize_map(maps, (4, 4))
        wanted += (maps - target).square().mean()
    torch.testing.assert_close(terms["fitnet"], 2 * wanted)
