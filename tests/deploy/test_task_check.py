import io

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console

from eyespot.deploy.task_check import TaskCheck, TaskLoss, task_check
from eyespot.encoders import Encoder
from eyespot.evaluate import ToyboxConfig, evaluate
from eyespot.evaluate.results import Metric, ResultTable
from eyespot.features import Features

TOYBOX = ToyboxConfig(train=24, val=12, size=32)
ACCURACY, RMSE = Metric("accuracy"), Metric("RMSE", unit="m", higher_is_better=False)


class ColourGridEncoder(Encoder):
    """Mean colours on a grid as patches, on a coarse grid as summary; `noise` drowns them."""

    license = None

    def __init__(self, name="colours", noise=0.0, native_size=None):
        super().__init__()
        self.name, self.noise, self.native_size = name, noise, native_size
        self.stride, self.default_size = 8, native_size or (32, 32)
        self.summary_dim, self.patch_dim = 12, 3
        self.sizes_seen = set()

    def _encode(self, images):
        self.sizes_seen.add(tuple(images.shape[2:]))
        patches = F.avg_pool2d(images, self.stride)
        generator = torch.Generator().manual_seed(len(images))
        patches = (1 - self.noise) * patches + self.noise * torch.rand(patches.shape, generator=generator)
        return Features(F.adaptive_avg_pool2d(patches, 2).flatten(1), patches)


def test_losses_are_those_of_evaluate_with_the_sign_of_worse():
    good, bad = ColourGridEncoder(), ColourGridEncoder(noise=0.9)
    check = task_check(good, bad, TOYBOX)
    table = evaluate({"good": good, "bad": bad}, ("knn", "segmentation", "depth"), TOYBOX, size=32)
    before, after = table.rows["good"], table.rows["bad"]
    names = ["knn/accuracy", "segmentation/mIoU", "depth/RMSE", "depth/delta1"]
    assert [f"{entry.task}/{entry.metric.name}" for entry in check.losses] == names
    for entry, name in zip(check.losses, names, strict=True):
        assert (entry.before, entry.after) == (before[name], after[name])
    losses = {name: entry.loss for name, entry in zip(names, check.losses, strict=True)}
    miou, rmse = "segmentation/mIoU", "depth/RMSE"
    assert losses[miou] == pytest.approx(100 * (before[miou] - after[miou]))  # of 24 pictures, so either sign
    assert losses[rmse] == pytest.approx(100 * (after[rmse] / before[rmse] - 1)) and losses[rmse] > 0
    assert check.worst.loss == max(losses.values())
    assert check.passed(check.worst.loss) and not check.passed(check.worst.loss - 0.01)
    assert check.settings["size"] == (32, 32)


def test_an_equal_file_loses_nothing():
    check = task_check(ColourGridEncoder(), ColourGridEncoder("file"), TOYBOX, tasks=("depth",))
    assert [entry.loss for entry in check.losses] == [0, 0] and check.passed(0)


def test_both_are_measured_at_the_size_of_the_file():
    original, file = ColourGridEncoder(), ColourGridEncoder("file", native_size=(16, 24))
    task_check(original, file, TOYBOX, tasks=("knn",), size=(16, 24))
    task_check(original, file, TOYBOX, tasks=("knn",))
    assert original.sizes_seen == file.sizes_seen == {(16, 24)}
    with pytest.raises(ValueError, match="file takes 16x24 only"):
        task_check(original, file, TOYBOX, tasks=("knn",), size=32)
    with pytest.raises(ValueError, match="but its file was exported for 16x24"):
        task_check(ColourGridEncoder(native_size=(32, 32)), file, TOYBOX, tasks=("knn",))


def test_a_file_of_any_size_is_measured_at_the_wanted_or_the_default_size():
    original, file = ColourGridEncoder(), ColourGridEncoder("file")
    original.default_size = (24, 24)
    task_check(original, file, TOYBOX, tasks=("knn",))
    assert original.sizes_seen == file.sizes_seen == {(24, 24)}
    task_check(original, file, TOYBOX, tasks=("knn",), size=40)
    assert original.sizes_seen == file.sizes_seen == {(24, 24), (40, 40)}


def test_points_percent_and_gains():
    assert TaskLoss("knn", ACCURACY, 0.80, 0.79).loss == pytest.approx(1.0)
    assert TaskLoss("depth", RMSE, 0.50, 0.51).loss == pytest.approx(2.0)
    assert TaskLoss("depth", RMSE, 0.50, 0.49).loss == pytest.approx(-2.0)
    assert TaskLoss("knn", ACCURACY, 0.79, 0.80).loss == pytest.approx(-1.0)


CHECK = TaskCheck(
    [TaskLoss("knn", ACCURACY, 0.80, 0.79), TaskLoss("depth", RMSE, 0.50, 0.49)], {"data": {"knn": "toybox"}, "seed": 0}
)


def test_json_round_trip():
    assert TaskCheck.from_json(CHECK.to_json()) == CHECK


def test_tables_for_people():
    assert CHECK.to_markdown() == (
        "| metric | before | after | loss |\n"
        "| --- | ---: | ---: | ---: |\n"
        "| knn accuracy, % | 80.0 | 79.0 | +1.00 points |\n"
        "| depth RMSE, m | 0.500 | 0.490 | -2.00 % |\n"
    )
    out = io.StringIO()
    CHECK.print(Console(file=out, width=80))
    assert "knn accuracy, %" in out.getvalue() and "-2.00 %" in out.getvalue()


def test_tasks_without_values_are_refused(monkeypatch):
    nothing = ResultTable([], {"before": {"knn/accuracy": None}, "after": {"knn/accuracy": 0.5}})
    monkeypatch.setattr("eyespot.deploy.task_check.evaluate", lambda *arguments, **options: nothing)
    with pytest.raises(ValueError, match="knn gave no values for colours"):
        task_check(ColourGridEncoder(), ColourGridEncoder("file"), TOYBOX, tasks=("knn",))
