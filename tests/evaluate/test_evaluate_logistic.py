import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.preprocessing import StandardScaler

from eyespot.evaluate.probing.logistic import (
    Examples,
    Labelled,
    fit_logistic,
    logistic_accuracy,
    mean_overlap,
    share_right,
)


def blobs(count, seed, spread=0.5, classes=3):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    centres = 3 * torch.eye(classes, 4)
    return Labelled(centres[labels] + spread * torch.randn(count, 4, generator=generator), labels)


def examples(pictures):
    classes, targets = pictures.labels.unique(return_inverse=True)
    inputs = pictures.features.double()
    return Examples(inputs, targets, torch.ones(len(inputs), dtype=inputs.dtype), len(classes))


EXACT = {"iterations": 2000, "tolerance": 1e-14}


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("strength", [1e-3, 0.1, 10.0])
def test_the_fit_equals_scikit_learn(classes, strength):
    """Of two classes scikit-learn fits the difference of our two rows, whose penalty is half as large."""
    train = blobs(80, 0, spread=2.0, classes=classes)
    found = next(fit_logistic(examples(train), [1 / (80 * strength)], **EXACT))
    model = LogisticRegression(C=strength * (2 if classes == 2 else 1), max_iter=2000, tol=1e-9)
    model.fit(train.features.double().numpy(), train.labels.numpy())
    queries = blobs(50, 1, spread=2.0).features.double()
    np.testing.assert_allclose(
        found.logits(queries).softmax(1).numpy(), model.predict_proba(queries.numpy()), atol=1e-5
    )


def test_a_path_ends_where_a_single_fit_does(monkeypatch):
    data = examples(blobs(60, 0, spread=2.0))
    penalties = [10.0, 0.1, 0.01]
    path = list(fit_logistic(data, penalties, **EXACT))
    for penalty, found in zip(penalties, path, strict=True):
        alone = next(fit_logistic(data, [penalty], **EXACT))
        torch.testing.assert_close(found.weight, alone.weight, atol=1e-5, rtol=0)
    again = next(fit_logistic(data, penalties[2:], path[1], **EXACT))
    torch.testing.assert_close(again.weight, path[2].weight, atol=1e-5, rtol=0)
    monkeypatch.setattr("eyespot.evaluate.probing.logistic.CHUNK", 50)  # a few pictures at a time
    parts = list(fit_logistic(data, penalties, **EXACT))
    torch.testing.assert_close(parts[2].weight, path[2].weight, atol=1e-5, rtol=0)


def test_shares_and_weights_are_repeated_rows():
    """A row of weight 3, a third of one class and two thirds of another, is one row of the one and two of the other."""
    inputs = torch.randn(30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shares = torch.zeros(30, 3, dtype=torch.float64)
    shares[torch.arange(30), torch.arange(30) % 3] = 1 / 3
    shares[torch.arange(30), (torch.arange(30) + 1) % 3] += 2 / 3
    one = next(fit_logistic(Examples(inputs, shares, torch.full((30,), 3.0).double(), 3), [0.01], **EXACT))
    targets = torch.stack([torch.arange(30), torch.arange(30) + 1, torch.arange(30) + 1], 1).flatten() % 3
    rows = Examples(inputs.repeat_interleave(3, 0), targets, torch.ones(90, dtype=torch.float64), 3)
    other = next(fit_logistic(rows, [0.01], **EXACT))
    torch.testing.assert_close(one.weight, other.weight, atol=1e-6, rtol=0)
    torch.testing.assert_close(other.answers(rows).sum(1), torch.full((3,), 30.0, dtype=torch.float64))


def test_scores_of_answers_by_hand():
    answers = torch.tensor([[4.0, 1, 0], [2, 3, 0], [0, 0, 0]], dtype=torch.float64)
    assert share_right(answers) == pytest.approx(0.7)
    assert mean_overlap(answers) == pytest.approx((4 / 7 + 3 / 6) / 2)


def test_separable_classes_are_found_and_noise_is_not():
    assert logistic_accuracy(blobs(90, 0), blobs(60, 1)) == 1.0
    generator = torch.Generator().manual_seed(2)
    noise, more = (Labelled(torch.randn(n, 4, generator=generator), torch.arange(n) % 3) for n in (300, 600))
    assert abs(logistic_accuracy(noise, more) - 1 / 3) < 0.12


def test_accuracy_equals_scikit_learn_on_features_of_total_variance_one():
    train, queries = blobs(60, 0, spread=2.0), blobs(200, 1, spread=2.0)
    mean, scale = train.features.numpy().mean(0), np.sqrt(train.features.numpy().var(0).sum())
    model = LogisticRegression(C=10.0, tol=1e-6).fit((train.features.numpy() - mean) / scale, train.labels.numpy())
    wanted = np.mean(model.predict((queries.features.numpy() - mean) / scale) == queries.labels.numpy())
    assert logistic_accuracy(train, queries, strengths=(10.0,)) == pytest.approx(wanted, abs=0.006)


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_is_that_of_scikit_learn_s_cross_validation(seed):
    """On standardised channels, with another solver, other parts and a finer choice."""
    train, queries = blobs(300, 2 * seed, spread=2.5), blobs(2000, 2 * seed + 1, spread=2.5)
    scaler = StandardScaler().fit(train.features.numpy())
    model = LogisticRegressionCV(Cs=20, cv=5, scoring="accuracy", l1_ratios=(0,), use_legacy_attributes=False).fit(
        scaler.transform(train.features.numpy()), train.labels.numpy()
    )
    wanted = model.score(scaler.transform(queries.features.numpy()), queries.labels.numpy())
    assert logistic_accuracy(train, queries, seed=seed) == pytest.approx(wanted, abs=0.02)


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
