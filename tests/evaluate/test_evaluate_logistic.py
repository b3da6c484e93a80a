import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from eyespot.evaluate.probing.logistic import Labelled, _prepared, fit_logistic, logistic_accuracy


def blobs(count, seed, spread=0.5, classes=3):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    centres = 3 * torch.eye(classes, 4)
    return Labelled(centres[labels] + spread * torch.randn(count, 4, generator=generator), labels)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("strength", [1e-3, 0.1, 10.0])
def test_the_fit_equals_scikit_learn(classes, strength):
    train = blobs(80, 0, spread=2.0, classes=classes)
    train = Labelled(train.features.double(), train.labels * 5)  # labels need not count from 0 without gaps
    found = next(fit_logistic(train, [strength], iterations=1000, tolerance=1e-9))
    model = LogisticRegression(C=strength, max_iter=1000, tol=1e-9).fit(train.features.numpy(), train.labels.numpy())
    queries = blobs(50, 1, spread=2.0).features.double()
    logits = queries @ found.weight.T + found.bias
    np.testing.assert_allclose(logits.softmax(1).numpy(), model.predict_proba(queries.numpy()), atol=1e-6)
    truth = Labelled(queries, torch.from_numpy(model.predict(queries.numpy())))
    assert found.accuracy(truth) == 1.0


def test_a_path_ends_where_a_single_fit_does(monkeypatch):
    train = blobs(60, 0, spread=2.0)
    train = Labelled(train.features.double(), train.labels)
    path = list(fit_logistic(train, [1e-3, 1e-1, 1.0], iterations=1000, tolerance=1e-9))
    for strength, found in zip([1e-3, 1e-1, 1.0], path, strict=True):
        alone = next(fit_logistic(train, [strength], iterations=1000, tolerance=1e-9))
        torch.testing.assert_close(found.weight, alone.weight, atol=1e-6, rtol=0)
    monkeypatch.setattr("eyespot.evaluate.probing.logistic.CHUNK", 50)  # a few pictures at a time
    parts = list(fit_logistic(train, [1e-3, 1e-1, 1.0], iterations=1000, tolerance=1e-9))
    torch.testing.assert_close(parts[2].weight, path[2].weight, atol=1e-6, rtol=0)


def test_separable_classes_are_found_and_noise_is_not():
    assert logistic_accuracy(blobs(90, 0), blobs(60, 1)) == 1.0
    generator = torch.Generator().manual_seed(2)
    noise, more = (Labelled(torch.randn(n, 4, generator=generator), torch.arange(n) % 3) for n in (300, 600))
    assert abs(logistic_accuracy(noise, more) - 1 / 3) < 0.12


def test_accuracy_equals_scikit_learn_on_standardised_features():
    train, queries = blobs(60, 0, spread=2.0), blobs(200, 1, spread=2.0)
    mean, std = train.features.numpy().mean(0), train.features.numpy().std(0, ddof=1)
    model = LogisticRegression(C=1.0, tol=1e-3).fit((train.features.numpy() - mean) / std, train.labels.numpy())
    wanted = np.mean(model.predict((queries.features.numpy() - mean) / std) == queries.labels.numpy())
    assert logistic_accuracy(train, queries, strengths=(1.0,)) == pytest.approx(wanted)


def test_the_regulariser_that_does_best_on_the_validation_pictures_is_taken():
    """One clean channel of small weight and many noisy ones: weak regularisation overfits."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 2
    features = torch.randn(400, 60, generator=generator) + 0.25 * labels[:, None]
    parts = [Labelled(features, labels)[torch.arange(400) // 10 % 4 == part] for part in range(4)]
    train, validation, queries = parts[0], parts[1], Labelled(features, labels)[torch.arange(400) // 10 % 4 > 1]
    strengths = (1e-4, 1e-2, 1.0, 100.0)
    alone = {s: logistic_accuracy(train, validation, strengths=(s,)) for s in strengths}
    best = max(strengths, key=lambda s: (alone[s], -s))
    assert len(set(alone.values())) > 1
    found = logistic_accuracy(train, queries, validation, strengths)
    assert found == logistic_accuracy(train, queries, strengths=(best,))


def test_the_rotation_changes_no_inner_product():
    generator = torch.Generator().manual_seed(0)
    train, queries = (
        Labelled(torch.randn(n, 50, dtype=torch.float64, generator=generator), torch.zeros(n)) for n in (10, 4)
    )
    mean, std = train.features.mean(0), train.features.std(0)
    small, asked = _prepared(train, [queries])
    assert small.features.shape == (10, 10)
    plain, wanted = ((part.features - mean) / std for part in (train, queries))
    torch.testing.assert_close(small.features @ small.features.T, plain @ plain.T)
    torch.testing.assert_close(asked.features @ small.features.T, wanted @ plain.T)


def test_constant_channels_do_no_harm():
    train, queries = (
        Labelled(torch.cat([part.features, torch.full((len(part), 1), 7.0)], 1), part.labels)
        for part in (blobs(90, 0), blobs(60, 1))
    )
    assert logistic_accuracy(train, queries) == 1


def test_the_same_seed_gives_the_same_number():
    train, queries = blobs(60, 0, spread=3.0), blobs(100, 1, spread=3.0)
    first, second = (logistic_accuracy(train, queries, seed=5) for _ in range(2))
    assert first == second


def test_what_makes_no_sense_is_refused():
    alone = Labelled(torch.randn(5, 2), torch.zeros(5, dtype=torch.int64))
    with pytest.raises(ValueError, match="two classes"):
        logistic_accuracy(alone, alone)
    with pytest.raises(ValueError, match="positive strengths"):
        logistic_accuracy(blobs(9, 0), blobs(9, 1), strengths=(0.0, 1.0))


def test_a_fit_to_one_class_knows_that_class():
    alone = Labelled(torch.randn(5, 2), torch.full((5,), 3))
    assert next(fit_logistic(alone, [1.0])).accuracy(alone) == 1.0
