import math

import pytest
import torch

from eyespot.dense_tasks import IGNORE, dense_task
from eyespot.evaluate.protocols.multitask import METRICS, metric_for, metric_name
from eyespot.evaluate.protocols.multitask.boundary import BoundaryF

KINDS = {
    "classes": dense_task("classes", 4),
    "saliency": dense_task("saliency"),
    "boundary": dense_task("boundary", max_distance=0.05),
    "normals": dense_task("normals"),
    "depth": dense_task("depth"),
    "keypoints": dense_task("keypoints", 2),
}


def measured(kind, *pairs):
    metric = metric_for(KINDS[kind])
    for output, label in pairs:
        metric.update(output, label)
    (value,) = metric.compute().values()
    return value


def some(kind, seed, size=(9, 12)):
    """A random output and a random label of that kind."""
    generator = torch.Generator().manual_seed(seed)
    task = KINDS[kind]
    output = torch.randn(task.channels, *size, generator=generator)
    if kind == "normals":
        label = torch.nn.functional.normalize(torch.randn(3, *size, generator=generator), dim=0)
    elif kind == "depth":
        label = 3 * torch.rand(size, generator=generator)
    elif kind == "keypoints":
        label = torch.zeros(2, *size)
        label[0, 2, 3] = label[1, 7, 1] = 1
    else:
        label = torch.randint(task.channels if kind == "classes" else 2, size, generator=generator).to(torch.uint8)
    return output, label


def unlabelled(kind, size=(9, 12)):
    if kind in ("normals", "keypoints"):
        return torch.zeros(KINDS[kind].channels, *size)
    return torch.zeros(size) if kind == "depth" else torch.full(size, IGNORE, dtype=torch.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_the_number_is_named_as_the_table_names_it(kind):
    found = metric_for(KINDS[kind])
    found.update(*some(kind, 0))
    assert list(found.compute()) == [METRICS[kind].name]
    assert metric_name("a task", KINDS[kind]) == f"a task {METRICS[kind].name}"


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_labelled_is_unknown_and_adds_nothing(kind):
    output, _ = some(kind, 0)
    assert math.isnan(measured(kind, (output, unlabelled(kind))))
    pair = some(kind, 1)
    assert measured(kind, pair, (output, unlabelled(kind))) == measured(kind, pair)


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"keypoints"}))
def test_pictures_are_pooled_pixel_by_pixel(kind):
    """Two pictures are as good as one wide one; boundaries, which would meet there, have their counts added."""
    pairs = [some(kind, seed) for seed in (2, 3)]
    wide = tuple(torch.cat([first, second], dim=-1) for first, second in zip(*pairs, strict=True))
    if kind != "boundary":
        assert measured(kind, *pairs) == pytest.approx(measured(kind, wide), rel=1e-6)
        return
    both, alone = BoundaryF(0.05, 9), [BoundaryF(0.05, 9) for _ in pairs]
    for metric, pair in zip(alone, pairs, strict=True):
        metric.update(*pair)
        both.update(*pair)
    total = alone[0].counts + alone[1].counts
    assert both.counts.matched.tolist() == total.matched.tolist()
    assert both.compute()["odsF"] == max(total.f_measure)


def test_miou_by_hand():
    label = torch.tensor([[0, 0, 1, 1, IGNORE]], dtype=torch.uint8)
    said = torch.tensor([[0, 1, 1, 1, 2]])
    output = torch.nn.functional.one_hot(said, 4).permute(2, 0, 1).float()
    assert measured("classes", (output, label)) == pytest.approx((1 / 2 + 2 / 3) / 2)  # classes 2 and 3 do not occur


def test_rmse_by_hand():
    label = torch.tensor([[1.0, 2.0, 0.0, 80.0, 79.0]])
    output = torch.tensor([[[-3.0, 4.0, 9.0, 9.0, 78.0]]])  # -3 counts as 0; 0 m and 80 m are not judged
    assert measured("depth", (output, label)) == pytest.approx(math.sqrt((1 + 4 + 1) / 3))


def test_rmse_is_pooled_over_pixels_not_over_pictures():
    one = (torch.full((1, 1, 1), 3.0), torch.full((1, 1), 1.0))
    many = (torch.full((1, 2, 4), 1.0), torch.full((2, 4), 1.0))
    assert measured("depth", one, many) == pytest.approx(math.sqrt(4 / 9))


def test_mean_angle_by_hand():
    label = torch.tensor([[0.0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 0]]).T[:, None]
    output = torch.tensor([[0.0, 0, 7], [0, 2, 0], [1, 0, 1], [1, 0, 0]]).T[:, None]
    assert measured("normals", (output, label)) == pytest.approx((0 + 90 + 45) / 3)


def test_maxf_by_hand():
    probability = torch.tensor([[0.9, 0.7, 0.6, 0.4, 0.2, 0.99]])
    label = torch.tensor([[1, 0, 1, 1, 0, IGNORE]], dtype=torch.uint8)
    output = torch.stack([torch.zeros_like(probability), probability.logit()])
    scores = []
    for threshold in torch.linspace(0.05, 0.95, 19):
        said = (probability >= threshold)[0, :5]
        hits = float((said & (label[0, :5] == 1)).sum())
        precision, recall = hits / max(float(said.sum()), 1), hits / 3
        scores.append(1.3 * precision * recall / (0.3 * precision + recall) if hits else 0)
    assert measured("saliency", (output, label)) == pytest.approx(max(scores), rel=1e-5)
    assert max(scores) == pytest.approx(1.3 * (3 / 4) / (0.3 * 3 / 4 + 1))  # at 0.4: three of four are right


def test_maxf_takes_the_best_threshold_of_all_pictures_together():
    """Each picture alone would be perfect at its own threshold."""
    pairs = []
    for shift in (0.0, 0.5):
        probability = torch.tensor([[0.1 + shift, 0.3 + shift]])
        pairs.append((torch.stack([torch.zeros(1, 2), probability.logit()]), torch.tensor([[0, 1]], dtype=torch.uint8)))
    assert all(measured("saliency", pair) == 1 for pair in pairs)
    precision, recall = 2 / 3, 1.0  # at 0.3; at 0.8 they are 1 and 1/2
    assert measured("saliency", *pairs) == pytest.approx(
        max(1.3 * precision * recall / (0.3 * precision + recall), 1.3 * 0.5 / 0.8)
    )


def peak(row, column, size=(10, 20)):
    found = torch.zeros(size)
    found[row, column] = 5.0
    return found


def points(*places, size=(10, 20)):
    found = torch.zeros(size)
    for row, column in places:
        found[row, column] = 1
        found[row, column + 1] = 0.8  # part of the bump, not a point
    return found


def test_key_points_are_hit_within_a_tenth_of_the_longer_side():
    label = torch.stack([points((5, 5)), points((5, 5))])
    assert measured("keypoints", (torch.stack([peak(5, 7), peak(5, 8)]), label)) == 0.5  # 2 and 3 pixels away
    assert measured("keypoints", (torch.stack([peak(7, 5), peak(6, 7)]), label)) == 0.5  # 2 and 2.2 pixels away


def test_any_point_of_a_type_may_be_found_and_types_without_points_do_not_count():
    label = torch.stack([points((1, 1), (8, 15)), torch.zeros(10, 20)])
    assert measured("keypoints", (torch.stack([peak(8, 15), peak(0, 0)]), label)) == 1
    far = (torch.stack([peak(9, 9), peak(0, 0)]), label)
    assert measured("keypoints", far) == 0
    assert measured("keypoints", far, (torch.stack([peak(1, 1), peak(0, 0)]), label)) == 0.5
