"""What a model's own class head says, on answers that are known."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from eyespot import Encoder, Features
from eyespot.data.sets import ClassificationData, LabelledPictures, TensorPictures
from eyespot.evaluate import FeatureBank, evaluate
from eyespot.evaluate.protocols.classification import (
    answers,
    class_accuracies,
    class_places,
    expected_calibration_error,
    run,
)
from eyespot.evaluate.protocols.counting import confusion
from eyespot.report import write_evaluation_report
from eyespot.report.exhibits.confusion import Confusion

NAMES = ["ant", "bee", "cat"]


class Knowing(Encoder):
    """Reads the number of a picture in its red and gives the logits of a table; has a head of as many classes."""

    summary_dim, patch_dim, stride, default_size, name = 3, 3, 8, (16, 16), "knowing"

    def __init__(self, table: Tensor, class_names: list[str] | None = None) -> None:
        super().__init__()
        self.table, self.num_classes, self.class_names = table, table.shape[1], class_names
        self.batches: list[tuple[int, ...]] = []

    def _encode(self, images: Tensor) -> Features:
        self.batches.append(tuple(images.shape))
        summary = images.mean((2, 3))
        number = (summary[:, 0] * 255).round().long().clamp(max=len(self.table) - 1)
        return Features(summary, images[:, :, ::8, ::8], self.table[number])


def pictures(count: int) -> TensorPictures:
    return TensorPictures(torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 16, 16).clone())


def data_of(labels: list[int], classes: list[str]) -> ClassificationData:
    split = LabelledPictures(pictures(len(labels)), torch.tensor(labels))
    return ClassificationData(split, split, classes)


def probabilities(*rows: list[float]) -> Tensor:
    return torch.tensor(rows).log()


TABLE = probabilities([0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.4, 0.1], [0.05, 0.05, 0.9])
LABELS = [0, 1, 1, 2]


def test_the_numbers_are_those_worked_out_by_hand():
    found = run(FeatureBank(Knowing(TABLE)), data_of(LABELS, NAMES))
    assert found["top1"] == 0.75 and found["top5"] == 1.0
    assert found["ECE"] == pytest.approx((0.3 + 0.4 + 0.5 + 0.1) / 4, abs=1e-6)  # four bins with one picture each
    assert found["NLL"] == pytest.approx(-sum(map(math.log, (0.7, 0.6, 0.4, 0.9))) / 4, abs=1e-6)
    assert run(FeatureBank(Knowing(TABLE)), data_of(LABELS, NAMES), bins=1)["ECE"] == pytest.approx(0.075, abs=1e-6)


def test_any_constant_per_picture_leaves_the_numbers_as_they_are():
    first = run(FeatureBank(Knowing(TABLE)), data_of(LABELS, NAMES))
    moved = run(FeatureBank(Knowing(TABLE + torch.tensor([[3.0], [-2.0], [0.5], [9.0]]))), data_of(LABELS, NAMES))
    assert moved == pytest.approx(first, abs=1e-6)


def test_top5_is_one_of_five():
    table = torch.arange(10.0).expand(3, -1).clone()
    found = run(FeatureBank(Knowing(table)), data_of([9, 5, 4], [str(number) for number in range(10)]))
    assert found["top1"] == pytest.approx(1 / 3) and found["top5"] == pytest.approx(2 / 3)


def reference_error(logits: Tensor, labels: Tensor, bins: int) -> float:
    """Equation 3 of Guo et al., written as a loop."""
    confidence, guess = logits.double().softmax(1).max(1)
    total = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        inside = (confidence >= low) & ((confidence < high) | (number == bins - 1))
        if inside.any():
            right = (guess == labels)[inside].double().mean()
            total += float(inside.double().mean() * (right - confidence[inside].mean()).abs())
    return total


@pytest.mark.parametrize("scale", [0.3, 2.0, 50.0])
def test_the_calibration_error_is_the_published_one(scale):
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(300, 7, generator=generator)
    labels = torch.randint(7, (300,), generator=generator)
    assert expected_calibration_error(logits, labels) == pytest.approx(reference_error(logits, labels, 15), abs=1e-5)


def test_confidences_of_exactly_one_share_the_last_bin():
    """One picture surely wrong, nine at 0.95 and right: 0.55 * 10 if they were apart."""
    sure = torch.tensor([[200.0, 0.0]])
    near = torch.tensor([[math.log(0.95 / 0.05), 0.0]]).expand(9, -1)
    error = expected_calibration_error(torch.cat([sure, near]), torch.tensor([1, *[0] * 9]), bins=15)
    assert error == pytest.approx(abs(0.9 - (1 + 9 * 0.95) / 10), abs=1e-6)


def test_confusion_has_the_truth_in_rows():
    counts = confusion(torch.tensor([0, 1, 0, 2]), torch.tensor(LABELS), 4)
    assert counts.dtype == torch.int64
    assert counts.tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    shares = class_accuracies(counts)
    assert shares[:3].tolist() == [1.0, 0.5, 1.0] and shares[3].isnan()


def test_accuracies_per_class_are_further_columns():
    data = data_of(LABELS, NAMES)
    table = evaluate(
        [Knowing(TABLE)], ("classification",), {"classification": data}, options={"classification": {"per_class": True}}
    )
    row = table.rows["knowing"]
    assert [row[f"classification/accuracy of {name}"] for name in NAMES] == [1.0, 0.5, 1.0]
    assert [column.key for column in table.shown()][2:4] == ["classification/top1", "classification/ECE"]


def test_pictures_without_label_do_not_count_and_batches_and_sizes_are_kept():
    encoder = Knowing(TABLE)
    logits, labels = answers(FeatureBank(encoder, size=24, batch_size=3), data_of([0, -1, 1, 2], NAMES))
    assert torch.equal(logits, TABLE[[0, 2, 3]]) and labels.tolist() == [0, 1, 2]
    assert encoder.batches == [(3, 3, 24, 24), (1, 3, 24, 24)]
    with pytest.raises(ValueError, match="there are none"):
        answers(FeatureBank(encoder), data_of([-1, -1], NAMES))


@pytest.mark.parametrize(
    ("own", "classes", "places"),
    [
        (None, ["x", "y", "z"], [0, 1, 2]),
        (["bee", "ant", "cat"], ["ant", "bee", "cat"], [1, 0, 2]),
        (["Bumble_bee", "ant", "cat"], ["cat", "bumble bee"], [2, 0]),
        (["n01", "n02", "n03"], ["2", "0"], [2, 0]),
        (None, ["0001", "0000", "0002"], [1, 0, 2]),
        (["2", "0", "1"], ["0", "1", "2"], [1, 2, 0]),
        (["crane", "crane", "cat"], ["crane", "crane", "cat"], [0, 1, 2]),
    ],
)
def test_classes_are_matched_by_name_or_value_or_position(own, classes, places):
    assert class_places(Knowing(TABLE, own), classes).tolist() == places


def test_numbered_folders_of_text_order_go_by_value():
    """0, 1, 10, 11, 2 ...: twelve folders as they are sorted."""
    names = sorted(str(number) for number in range(12))
    assert names[2] == "10"
    assert class_places(Knowing(torch.eye(12)), names).tolist() == [int(name) for name in names]


def test_data_of_another_order_get_the_same_numbers():
    first = run(FeatureBank(Knowing(TABLE, NAMES)), data_of(LABELS, NAMES))
    turned = run(FeatureBank(Knowing(TABLE, NAMES)), data_of([2, 1, 1, 0], NAMES[::-1]))
    assert turned == first


@pytest.mark.parametrize(
    ("own", "classes", "message"),
    [
        (None, ["ant", "bee"], "the data have 2 classes, knowing tells 3 apart"),
        (
            ["n01", "n02", "n03"],
            ["ant", "bee", "cat"],
            "knows 0 of the data's 3 classes by name, but not ant,",
        ),
        (None, ["1", "2", "3"], "numbers up to 3, knowing has outputs 0 to 2"),
        (NAMES, ["ant", "bee", "elk"], "knows 2 of the data's 3 classes by name, but not elk"),
    ],
)
def test_classes_that_do_not_belong_together_are_refused(own, classes, message):
    with pytest.raises(ValueError, match=message):
        class_places(Knowing(TABLE, own), classes)


def test_an_encoder_without_head_says_how_to_load_one(colours):
    with pytest.raises(ValueError, match=r"colours has no class head; .*load_classifier.*num_classes=1000"):
        evaluate([colours], ("classification",), {"classification": data_of(LABELS, NAMES)})
    with pytest.raises(ValueError, match="brings no class head"):
        evaluate(["timm/vit_tiny_patch16_dinov3_qkvb?pretrained=false&depth=1"], ("classification",), "toybox:8@32")


def test_specs_are_loaded_with_their_head():
    spec = "timm/resnet10t?pretrained=false&num_classes=6"
    row = evaluate([spec], ("classification", "knn"), "toybox:12@32", size=32).rows[spec]
    assert 0 <= row["classification/top1"] <= row["classification/top5"] <= 1
    assert row["knn/accuracy"] is not None


def test_nan_is_an_error():
    with pytest.raises(ValueError, match="NaN"):
        run(FeatureBank(Knowing(TABLE * float("nan"))), data_of(LABELS, NAMES))


def test_the_report_shows_what_is_taken_for_what(tmp_path):
    data, model = data_of([2, 1, 1, 0], NAMES[::-1]), Knowing(TABLE, NAMES)
    counts = Confusion(data).look(FeatureBank(model))[0]
    assert counts.tolist() == [[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0]]
    table = evaluate([model], ("classification",), {"classification": data})
    page = write_evaluation_report(
        tmp_path / "report.html", table, models={"knowing": model}, data={"classification": data}, folder=tmp_path
    ).read_text(encoding="utf-8")
    assert "Confusion, knowing" in page and "bee taken for ant (1 times)" in page


def test_of_many_classes_those_with_most_mistakes_are_drawn_and_others_are_counted():
    classes = [f"c{number}" for number in range(40)]
    table = torch.eye(40)[[*range(39), 0]]
    (figure,) = Confusion(data_of(list(range(40)), classes)).draw({"a": [torch.eye(40, 41, dtype=torch.int64)]})
    assert "There are no mistakes" in figure.caption and "Of 40 classes the 24" in figure.caption
    few = data_of([0, 1], ["c39", "c1"])
    model = Knowing(table[[0, 1]], classes)
    assert Confusion(few).look(FeatureBank(model))[0].tolist() == [[0, 0, 1], [0, 1, 0]]
    (figure,) = Confusion(few).draw({"a": Confusion(few).look(FeatureBank(model))})
    assert "c39 taken for a class that the data do not have (1 times)" in figure.caption


def test_classes_of_a_head_are_needed_for_places():
    with pytest.raises(ValueError, match="has no class head"):
        class_places(SimpleNamespace(num_classes=0, name="bare", class_names=None), NAMES)
