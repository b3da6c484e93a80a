import math

import pytest
import torch

from eyespot.evaluate import FeatureBank, knn
from eyespot.evaluate.datasets import ClassificationData, LabelledPictures, TensorPictures
from eyespot.evaluate.knn import knn_predict


def brute_force(train, labels, query, k, temperature):
    """One query, in plain Python, from the definition: softmax over the top 200 similarities, votes of the first k."""

    def unit(vector):
        length = math.sqrt(sum(value * value for value in vector))
        return [value / length for value in vector]

    query = unit(query)
    similar = sorted(
        (
            (sum(a * b for a, b in zip(unit(row), query, strict=True)), label)
            for row, label in zip(train, labels, strict=True)
        ),
        key=lambda pair: -pair[0],
    )[:200]
    weights = [math.exp(similarity / temperature) for similarity, _ in similar]
    votes: dict[int, float] = {}
    for (_, label), weight in list(zip(similar, weights, strict=True))[:k]:
        votes[label] = votes.get(label, 0.0) + weight / sum(weights)
    return max(sorted(votes), key=lambda label: votes[label])


@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_equals_brute_force(k, temperature):
    generator = torch.Generator().manual_seed(k)
    train = torch.randn(60, 5, generator=generator)
    labels = torch.randint(4, (60,), generator=generator)
    queries = torch.randn(40, 5, generator=generator)
    found = knn_predict(train, labels, queries, k, temperature, chunk=7)
    wanted = [brute_force(train.tolist(), labels.tolist(), query, k, temperature) for query in queries.tolist()]
    assert found.tolist() == wanted


def test_weights_decide_against_the_majority():
    train = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    labels = torch.tensor([1, 0, 0])
    query = torch.tensor([[1.0, 0.1]])
    assert knn_predict(train, labels, query, k=3).item() == 1
    assert knn_predict(train, labels, query, k=3, temperature=100.0).item() == 0


def test_length_of_features_and_a_tiny_temperature_do_no_harm():
    train, labels = torch.eye(3), torch.arange(3)
    assert knn_predict(train * 1e6, labels, train * 1e-6, k=50, temperature=1e-4).tolist() == [0, 1, 2]


def test_no_training_pictures():
    with pytest.raises(ValueError, match="none"):
        knn_predict(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), torch.ones(1, 2))


def test_task_leaves_out_pictures_without_a_label(colours):
    red, blue = torch.tensor([1.0, 0, 0]), torch.tensor([0, 0, 1.0])
    images = torch.stack([red, red, blue, blue])[:, :, None, None].expand(4, 3, 32, 32)
    pictures = TensorPictures(images)
    train = LabelledPictures(pictures, torch.tensor([0, -1, 1, 1]))
    val = LabelledPictures(pictures, torch.tensor([0, 0, -1, 0]))
    result = knn.run(FeatureBank(colours), ClassificationData(train, val, ["red", "blue"]), k=1)
    assert result["accuracy"] == pytest.approx(2 / 3)
