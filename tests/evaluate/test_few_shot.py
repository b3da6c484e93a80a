import pytest
import torch

from eyespot.data.sets import ClassificationData, LabelledPictures, TensorPictures
from eyespot.evaluate import FeatureBank
from eyespot.evaluate.protocols import few_shot
from eyespot.evaluate.protocols.few_shot import draw_shots


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_shots_are_balanced_and_disjoint():
    labels = torch.tensor([0] * 10 + [1] * 20 + [2] * 4 + [3] * 2)
    chosen, held = draw_shots(labels, 3, generator())
    assert labels[chosen].bincount().tolist() == [3, 3, 3, 2]
    assert labels[held].bincount().tolist() == [3, 3, 1]
    assert not set(chosen.tolist()) & set(held.tolist())
    assert draw_shots(labels, 3, generator())[0].tolist() == chosen.tolist()
    assert draw_shots(labels, 3, generator(1))[0].tolist() != chosen.tolist()


def test_every_picture_is_drawn_equally_often():
    labels = torch.tensor([0] * 4 + [1] * 2)
    counts = torch.zeros(6)
    for seed in range(400):
        counts[draw_shots(labels, 1, generator(seed))[0]] += 1
    assert counts[:4].min() > 60 and counts[4:].min() > 160  # 100 and 200 expected


@pytest.fixture
def noisy():
    """Two classes whose colours overlap."""
    noise = generator()
    parts = []
    for count in (80, 200):
        labels = torch.arange(count) % 2
        images = torch.rand(count, 3, 16, 16, generator=noise) * 0.2 + torch.rand(count, 3, 1, 1, generator=noise) * 0.5
        images[:, 0] += 0.2 * labels[:, None, None]
        labels[::20] = -1
        parts.append(LabelledPictures(TensorPictures(images), labels))
    return ClassificationData(parts[0], parts[1], ["grey", "reddish"])


def test_more_shots_help_and_draws_spread(colours, noisy):
    bank = FeatureBank(colours)
    one, many = (few_shot.run(bank, noisy, shots=shots, draws=8) for shots in (1, 15))
    assert many["accuracy"] > one["accuracy"] + 0.05
    assert one["spread"] > many["spread"] > 0
    assert few_shot.run(bank, noisy, shots=1, draws=8) == one


def test_several_numbers_of_shots_are_averaged(colours, noisy):
    bank = FeatureBank(colours)
    one, two, both = (few_shot.run(bank, noisy, shots=shots, draws=3)["accuracy"] for shots in (1, 2, (1, 2)))
    assert both == pytest.approx((one + two) / 2)
    assert few_shot.run(bank, noisy, shots=2, draws=1)["spread"] == 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [({"shots": 0}, "at least one shot"), ({"draws": 0}, "at least one"), ({"shots": 50}, "no class has more than 50")],
)
def test_what_cannot_be_drawn_is_refused(colours, noisy, options, message):
    with pytest.raises(ValueError, match=message):
        few_shot.run(FeatureBank(colours), noisy, **options)
