import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from eyespot.evaluate import FeatureBank, linear
from eyespot.evaluate.datasets import ClassificationData, LabelledPictures, TensorPictures
from eyespot.evaluate.linear import _rotate, logistic_accuracy


def blobs(count, seed, spread=0.5):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    centres = torch.tensor([[3.0, 0, 0, 0], [0, 3, 0, 0], [0, 0, 3, 0]])
    return centres[labels] + spread * torch.randn(count, 4, generator=generator), labels


def test_separable_classes_are_found_and_noise_is_not():
    train, labels = blobs(90, 0)
    queries, truth = blobs(60, 1)
    assert logistic_accuracy(train, labels, queries, truth) == 1.0
    generator = torch.Generator().manual_seed(2)
    noise, more = torch.randn(300, 4, generator=generator), torch.randn(600, 4, generator=generator)
    accuracy = logistic_accuracy(noise, torch.arange(300) % 3, more, torch.arange(600) % 3)
    assert abs(accuracy - 1 / 3) < 0.12


def test_equals_scikit_learn_on_standardised_features():
    train, labels = blobs(60, 0, spread=2.0)
    queries, truth = blobs(200, 1, spread=2.0)
    mean, std = train.numpy().mean(0), train.numpy().std(0, ddof=1)
    model = LogisticRegression(C=1.0, tol=1e-3).fit((train.numpy() - mean) / std, labels.numpy())
    wanted = np.mean(model.predict((queries.numpy() - mean) / std) == truth.numpy())
    assert logistic_accuracy(train, labels, queries, truth, strengths=(1.0,)) == pytest.approx(wanted)


def test_the_rotation_changes_no_inner_product():
    train, queries = torch.randn(10, 50, dtype=torch.float64), torch.randn(4, 50, dtype=torch.float64)
    small, asked = _rotate(train, queries)
    assert small.shape == (10, 10)
    torch.testing.assert_close(small @ small.T, train @ train.T)
    torch.testing.assert_close(asked @ small.T, queries @ train.T)


def test_constant_channels_do_no_harm():
    train, labels = blobs(90, 0)
    queries, truth = blobs(60, 1)
    constant = torch.full((90, 1), 7.0)
    assert (
        logistic_accuracy(torch.cat([train, constant], 1), labels, torch.cat([queries, constant[:60]], 1), truth) == 1
    )


def test_the_same_seed_gives_the_same_number():
    train, labels = blobs(60, 0, spread=3.0)
    queries, truth = blobs(100, 1, spread=3.0)
    first, second = (logistic_accuracy(train, labels, queries, truth, seed=5) for _ in range(2))
    assert first == second


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="two classes"):
        logistic_accuracy(torch.randn(5, 2), torch.zeros(5, dtype=torch.int64), torch.randn(2, 2), torch.zeros(2))


def test_reading_sees_where_summaries_do_not(colours):
    """The label is where a bright square stands; the summary is made blind to it."""
    count = 120
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (count,), generator=generator)
    images = 0.1 * torch.rand(count, 3, 32, 32, generator=generator)
    for index, label in enumerate(labels.tolist()):
        images[index, :, 8 * label : 8 * label + 8, 8:16] += 0.5
    plain = colours._encode
    colours._encode = lambda pictures: type(features := plain(pictures))(features.summary * 0, features.patches)
    split = [LabelledPictures(TensorPictures(images[part]), labels[part]) for part in (slice(80), slice(80, None))]
    data = ClassificationData(split[0], split[1], ["up", "down"])
    assert linear.run_reading(FeatureBank(colours), data)["accuracy"] == 1.0
    assert linear.run(FeatureBank(colours), data)["accuracy"] < 0.8
