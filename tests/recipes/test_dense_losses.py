"""Losses of dense tasks and of maps, against SAK's own numbers (paper notes, section h) and against plain formulas."""

import math

import pytest
import torch
import torch.nn.functional as F

from eyespot.dense_tasks import IGNORE, WEIGHTS, Kind
from eyespot.recipes.sak.dense_losses import (
    DENSE_LOSSES,
    boundary_loss,
    class_loss,
    depth_loss,
    keypoint_loss,
    labelled_pixels,
    normals_loss,
    saliency_loss,
)
from eyespot.recipes.sak.path_losses import PATH_LOSSES, on_one_grid, path_loss

CHANNELS = {"classes": 5, "saliency": 2, "boundary": 1, "normals": 3, "depth": 1, "keypoints": 2}


def labels_of(kind, labelled=True):
    """Label maps [2, ..., 6, 8] of a kind, half of them (or all) without a label."""
    generator = torch.Generator().manual_seed(3)
    rows = torch.arange(6)[:, None].expand(6, 8) < (3 if labelled else 0)
    if kind in ("classes", "saliency", "boundary"):
        values = torch.randint(0, 2, (2, 6, 8), generator=generator, dtype=torch.uint8)
        return torch.where(rows, values, IGNORE).to(torch.uint8)
    if kind == "normals":
        return F.normalize(torch.randn(2, 3, 6, 8, generator=generator), dim=1) * rows
    if kind == "depth":
        return (1 + torch.rand(2, 6, 8, generator=generator)) * rows
    return torch.rand(2, 2, 6, 8, generator=generator)


def output_of(kind):
    return torch.randn(2, CHANNELS[kind], 6, 8, generator=torch.Generator().manual_seed(4)).requires_grad_()


def test_saliency_of_the_paper():
    output = torch.tensor([[[[1.0, 0.0], [0.0, 2.0]], [[0.0, 1.0], [0.5, 0.0]]]])
    label = torch.tensor([[[0, 1], [1, 255]]], dtype=torch.uint8)
    assert saliency_loss(output, label).item() == pytest.approx(0.157096, abs=5e-7)
    assert saliency_loss(output, label, balanced=False).item() == pytest.approx(0.366867, abs=5e-7)


def test_boundary_of_the_paper():
    output = torch.tensor([[[[0.5, -1.0], [2.0, 0.0]]]])
    label = torch.tensor([[[1, 0], [0, 255]]], dtype=torch.uint8)
    assert boundary_loss(output, label).item() == pytest.approx(0.190794, abs=5e-7)


def test_normals_of_the_paper():
    output = torch.tensor([3.0, 4.0, 0.0]).view(1, 3, 1, 1)
    label = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1)
    assert normals_loss(output, label).item() == pytest.approx(2.4, abs=1e-6)


def test_classes_are_a_mean_over_labelled_pixels():
    output = torch.randn(2, 3, 4, 5)
    label = torch.randint(0, 3, (2, 4, 5), dtype=torch.uint8)
    label[0, :2] = IGNORE
    wanted = F.cross_entropy(output.movedim(1, -1)[label != IGNORE], label[label != IGNORE].long())
    torch.testing.assert_close(class_loss(output, label), wanted)


def test_depth_is_a_mean_over_labelled_pixels():
    output = torch.tensor([[[[1.0, -2.0], [5.0, 9.0]]]])
    label = torch.tensor([[[3.0, 1.0], [0.0, 9.5]]])
    assert depth_loss(output, label).item() == pytest.approx((2 + 3 + 0.5) / 3)


def test_keypoints_by_hand():
    output, label = torch.tensor([[[[0.0, 2.0]]]]), torch.tensor([[[[1.0, 0.25]]]])
    soft = -0.25 * math.log(1 / (1 + math.exp(-2))) - 0.75 * math.log(1 / (1 + math.exp(2)))
    assert keypoint_loss(output, label).item() == pytest.approx((math.log(2) + soft) / 2, abs=1e-6)


def test_there_is_a_loss_for_every_kind():
    assert DENSE_LOSSES.keys() == WEIGHTS.keys()


@pytest.mark.parametrize("kind", DENSE_LOSSES)
def test_unlabelled_pixels_have_no_gradient_and_do_not_count(kind):
    output, label = output_of(kind), labels_of(kind)
    loss = DENSE_LOSSES[kind](output, label)
    loss.backward()
    assert loss.item() > 0 and output.grad[:, :, :3].abs().sum() > 0
    if kind != "keypoints":
        assert not output.grad[:, :, 3:].any()
        torch.testing.assert_close(DENSE_LOSSES[kind](output[:, :, :3], label[..., :3, :]), loss)


@pytest.mark.parametrize("kind", [kind for kind in DENSE_LOSSES if kind != "keypoints"])
def test_a_batch_without_labels_costs_nothing_and_still_has_gradients(kind):
    output = output_of(kind)
    loss = DENSE_LOSSES[kind](output, labels_of(kind, labelled=False))
    loss.backward()
    assert loss.item() == 0 and output.grad is not None and not output.grad.any()


@pytest.mark.parametrize("kind", DENSE_LOSSES)
def test_float32_whatever_comes_in_and_around(kind):
    output, label = output_of(kind).detach().bfloat16(), labels_of(kind)
    wanted = DENSE_LOSSES[kind](output.float(), label)
    with torch.autocast("cpu", torch.bfloat16):
        given = DENSE_LOSSES[kind](output, label)
    assert given.dtype == torch.float32
    torch.testing.assert_close(given, wanted, rtol=1e-6, atol=1e-6)


def test_normals_of_length_zero_have_finite_gradients():
    output = torch.zeros(1, 3, 2, 2, requires_grad=True)
    normals_loss(output, labels_of("normals")[:1, :, :2, :2]).backward()
    assert output.grad.isfinite().all() and output.grad.abs().max() < 1e5


def paper_maps():
    teacher = torch.arange(16.0).reshape(2, 2, 2, 2) / 8
    return teacher.flip(1) * 0.5 + 0.25, teacher


def test_map_loss_of_the_paper():
    ours, theirs = paper_maps()
    assert path_loss(ours, theirs).item() == pytest.approx(0.160600, abs=5e-7)
    assert path_loss(ours[:, :, :1, :1], theirs).item() == pytest.approx(0.200788, abs=5e-7)


def test_map_loss_takes_a_map_as_one_vector():
    ours, theirs = torch.randn(3, 4, 5, 6), torch.randn(3, 4, 5, 6)
    cosine = 1 - F.cosine_similarity(ours.flatten(1), theirs.flatten(1)).mean()
    torch.testing.assert_close(path_loss(ours, theirs, "cos"), cosine)
    torch.testing.assert_close(path_loss(ours, theirs, "l2"), (ours - theirs).square().mean())
    wanted = 0.9 * cosine + 0.1 * F.smooth_l1_loss(ours, theirs)
    torch.testing.assert_close(path_loss(ours, theirs), wanted)
    per_token = 1 - F.cosine_similarity(ours, theirs, dim=1).mean()
    assert not torch.isclose(cosine, per_token, atol=1e-4)


@pytest.mark.parametrize(
    ("ours", "theirs", "grid"),
    [((2, 9), (3, 4), (3, 4)), ((5, 2), (3, 4), (5, 2)), ((3, 2), (3, 4), (3, 4)), ((3, 4), (3, 4), (3, 4))],
    ids=["teacher has more rows", "student has more rows", "as many rows", "equal"],
)
def test_the_map_with_fewer_rows_is_resized(ours, theirs, grid):
    for given, source in zip(
        on_one_grid(torch.randn(2, 3, *ours), torch.randn(2, 3, *theirs)), (ours, theirs), strict=True
    ):
        assert given.shape == (2, 3, *grid), source
    student = torch.randn(2, 3, *ours)
    wanted = F.interpolate(student, size=grid, mode="bilinear", align_corners=False)
    torch.testing.assert_close(on_one_grid(student, torch.randn(2, 3, *theirs))[0], wanted)


@pytest.mark.parametrize("kind", PATH_LOSSES)
def test_equal_maps_cost_nothing_and_zero_maps_are_finite(kind):
    maps = torch.randn(2, 3, 4, 4)
    assert path_loss(maps, maps.clone(), kind).item() == pytest.approx(0, abs=1e-6)
    nothing = torch.zeros(2, 3, 4, 4, requires_grad=True)
    path_loss(nothing, maps, kind).backward()
    assert nothing.grad.isfinite().all()


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="take one of cos"):
        path_loss(*paper_maps(), "l1")
    with pytest.raises(ValueError, match="Linear\\(2 -> 1\\)"):
        path_loss(paper_maps()[0], paper_maps()[1][:, :1])


@pytest.mark.parametrize("kind", sorted(DENSE_LOSSES))
@pytest.mark.parametrize("parts", [[slice(0, 2), slice(2, 4)], [slice(0, 1), slice(1, 4)]])
def test_the_loss_of_parts_is_that_of_the_whole(kind: Kind, parts: list[slice]) -> None:
    """Also where one picture is labelled everywhere and another nowhere."""
    generator = torch.Generator().manual_seed(0)
    channels = {"classes": 5, "saliency": 2, "boundary": 1, "normals": 3, "depth": 1, "keypoints": 3}[kind]
    output = torch.randn(4, channels, 6, 6, generator=generator)
    gaps = torch.rand(4, 6, 6, generator=generator) < torch.tensor([0.0, 0.9, 0.5, 1.0])[:, None, None]
    if kind == "normals":
        label = F.normalize(torch.randn(4, 3, 6, 6, generator=generator), dim=1) * ~gaps[:, None]
    elif kind == "depth":
        label = torch.rand(4, 6, 6, generator=generator) * ~gaps
    elif kind == "keypoints":
        label = torch.rand(4, 3, 6, 6, generator=generator)
    else:
        label = torch.randint(0, min(channels + 1, 3), (4, 6, 6), generator=generator, dtype=torch.uint8) % 2
        label[gaps] = IGNORE
    loss = DENSE_LOSSES[kind]
    whole = labelled_pixels({"task": kind}, {"task": label}).get("task")
    found = sum(loss(output[part], label[part], whole) * (part.stop - part.start) / 4 for part in parts)
    torch.testing.assert_close(found, loss(output, label, None))
    assert torch.equal(loss(output, label, whole), loss(output, label, None))
