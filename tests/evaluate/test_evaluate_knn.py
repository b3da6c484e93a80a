import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from eyespot.data.sets import ClassificationData, LabelledPictures, TensorPictures
from eyespot.evaluate import FeatureBank
from eyespot.evaluate.protocols import knn
from eyespot.evaluate.protocols.knn import nearest, vote


def predict(train, labels, queries, k, temperature=0.07, metric="cosine", chunk=None):
    similarity, index = nearest(train, queries, k, metric, chunk)
    return vote(similarity, labels[index], k, temperature)


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


@pytest.fixture
def noise():
    generator = torch.Generator().manual_seed(0)
    train, queries = (torch.randn(count, 5, generator=generator) for count in (60, 40))
    return train, torch.randint(4, (60,), generator=generator), queries


@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_equals_brute_force(k, temperature, noise):
    train, labels, queries = noise
    found = predict(train, labels, queries, k, temperature, chunk=7)
    wanted = [brute_force(train.tolist(), labels.tolist(), query, k, temperature) for query in queries.tolist()]
    assert found.tolist() == wanted


@pytest.mark.parametrize("k", [1, 4, 10])
def test_plain_l2_equals_scikit_learn(k, noise):
    train, labels, queries = (noise[0] + 100, noise[1], noise[2] + 100)  # far from the origin
    found = predict(train, labels, queries, k, None, "l2", chunk=7)
    model = KNeighborsClassifier(k, algorithm="brute").fit(train.double().numpy(), labels.numpy())
    assert found.tolist() == model.predict(queries.double().numpy()).tolist()
    distances = model.kneighbors(queries.double().numpy())[0]
    similarity = nearest(train, queries, k, "l2")[0]
    np.testing.assert_allclose((-similarity.double().numpy()) ** 0.5, distances, rtol=1e-4)


def test_chunks_change_nothing(noise):
    train, _, queries = noise
    for metric in ("cosine", "l2"):
        whole, parts = nearest(train, queries, 5, metric), nearest(train, queries, 5, metric, chunk=1)
        assert torch.equal(whole[1], parts[1])


def test_weights_decide_against_the_majority():
    train = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    labels = torch.tensor([1, 0, 0])
    query = torch.tensor([[1.0, 0.1]])
    assert predict(train, labels, query, k=3).item() == 1
    assert predict(train, labels, query, k=3, temperature=100.0).item() == 0
    assert predict(train, labels, query, k=3, temperature=None).item() == 0


def test_length_of_features_and_a_tiny_temperature_do_no_harm():
    train, labels = torch.eye(3), torch.arange(3)
    assert predict(train * 1e6, labels, train * 1e-6, k=50, temperature=1e-4).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("count", "k", "metric", "message"),
    [(0, 1, "l2", "none"), (2, 0, "l2", "k = 0"), (2, 1, "l1", "write cosine or l2")],
)
def test_what_makes_no_sense_is_refused(count, k, metric, message):
    with pytest.raises(ValueError, match=message):
        nearest(torch.zeros(count, 2), torch.ones(1, 2), k, metric)


@pytest.fixture
def data():
    """Pictures of one colour; the second training picture and the third validation picture have no label."""
    red, blue = torch.tensor([1.0, 0, 0]), torch.tensor([0, 0, 1.0])
    images = torch.stack([red, red, blue, blue])[:, :, None, None].expand(4, 3, 32, 32)
    pictures = TensorPictures(images)
    train = LabelledPictures(pictures, torch.tensor([0, -1, 1, 1]))
    val = LabelledPictures(pictures, torch.tensor([0, 0, -1, 0]))
    return ClassificationData(train, val, ["red", "blue"])


def test_task_leaves_out_pictures_without_a_label(colours, data):
    found = knn.run(FeatureBank(colours), data, k=1)
    assert found["accuracy"] == pytest.approx(2 / 3)


def test_best_of_a_list(colours, data):
    """With three equal votes the two blues win everywhere; with one or two, red pictures are red."""
    found = knn.run(FeatureBank(colours), data, k=3, ks=(1, 2, 30), metric="l2")
    assert found == {"accuracy": 0.0, "best": pytest.approx(2 / 3), "best_k": 1.0}
    assert knn.run(FeatureBank(colours), data, k=3, ks=3, metric="l2") == {"accuracy": 0.0, "best": 0.0, "best_k": 3.0}
