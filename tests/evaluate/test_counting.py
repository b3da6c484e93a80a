"""Metrics of counts, to the bit what torchmetrics makes of the same answers."""

import pytest
import torch
from torchmetrics.classification import BinaryPrecisionRecallCurve, MulticlassConfusionMatrix
from torchmetrics.functional.classification import multiclass_calibration_error

from eyespot.dense_tasks import IGNORE
from eyespot.evaluate.protocols.classification import BELOW_ONE, expected_calibration_error
from eyespot.evaluate.protocols.counting import confusion, counts_above
from eyespot.evaluate.protocols.multitask.metrics import BETA_SQUARED, SaliencyF
from eyespot.evaluate.protocols.segmentation import MeanIoU

SEED = torch.Generator().manual_seed(0)


def test_confusion_of_maps_is_that_of_torchmetrics():
    said, truth = torch.randint(0, 5, (2, 30, 40), generator=SEED)
    other = MulticlassConfusionMatrix(5)(said, truth)
    assert torch.equal(confusion(said, truth, 5), other) and other.sum() == 1200


def test_overlap_of_classes_leaves_out_what_is_ignored():
    metric, other = MeanIoU(6, IGNORE), MulticlassConfusionMatrix(6, ignore_index=IGNORE)
    for _ in range(3):
        said, truth = torch.randint(0, 6, (2, 20, 20), generator=SEED)
        truth[torch.rand(20, 20, generator=SEED) < 0.3] = IGNORE
        metric.update(said, truth.to(torch.uint8))
        other.update(said, truth)
    assert torch.equal(metric.counts, other.compute())


def test_a_score_that_is_the_threshold_reaches_it():
    right, wrong = counts_above(torch.tensor([0.5, 0.5, 0.2, 0.9]), torch.tensor([True, False, True, True]), THRESHOLDS)
    assert right.tolist() == [3, 2, 1] and wrong.tolist() == [1, 1, 0]


THRESHOLDS = torch.tensor([0.1, 0.5, 0.75])


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_the_largest_f_measure_is_that_of_the_curve_of_torchmetrics(share):
    curve = BinaryPrecisionRecallCurve(thresholds=torch.linspace(0.05, 0.95, 19), ignore_index=IGNORE)
    metric = SaliencyF()
    for _ in range(2):
        logits = 3 * torch.randn(2, 50, 60, generator=SEED)
        truth = (torch.rand(50, 60, generator=SEED) < share).to(torch.uint8)
        truth[torch.rand(50, 60, generator=SEED) < 0.1] = IGNORE
        metric.update(logits, truth)
        curve.update(logits.softmax(dim=0)[1], truth.long())
    precision, recall, _ = (values.nan_to_num(0) for values in curve.compute())
    score = (1 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall).clamp(min=1e-12)
    wanted = float(score.max()) if share else float("nan")  # nothing salient is nothing to measure
    assert metric.compute() == pytest.approx({"maxF": wanted}, nan_ok=True)


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_the_calibration_error_is_that_of_torchmetrics(bins):
    logits, labels = 4 * torch.randn(500, 8, generator=SEED), torch.randint(0, 8, (500,), generator=SEED)
    logits[:20, 0] = 1000.0  # certain
    probabilities = logits.double().softmax(1).clamp(max=BELOW_ONE)
    other = multiclass_calibration_error(probabilities, labels, num_classes=8, n_bins=bins)
    assert expected_calibration_error(logits, labels, bins) == pytest.approx(float(other), rel=1e-6)
