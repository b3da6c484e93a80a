import io

import pytest
import torch
from rich.console import Console

from eyespot.deploy.check import numeric_check
from eyespot.randomness import torch_generator

NAMES = ("summary", "patches")


def model(images):
    patches = torch.nn.functional.avg_pool2d(images, 8)
    return patches.mean((2, 3)), patches


class Session:
    """What a runtime would give: the model's outputs, spoilt."""

    batch = size = None
    outputs = NAMES
    metadata: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, spoil):
        self.spoil = spoil

    def run(self, images, names):
        values = dict(zip(NAMES, model(images), strict=True))
        return [self.spoil(values[name]) for name in names]


def check(spoil, least_cosine=0.9999, count=2):
    images = torch.rand(count, 3, 32, 48, generator=torch_generator("check"))
    return numeric_check(model, Session(spoil), NAMES, [images], least_cosine)


def test_the_same_passes():
    result = check(lambda value: value)
    assert result.passed
    assert [entry.output for entry in result.agreements] == list(NAMES)
    assert all(entry.max_difference == 0 and entry.answer == 1 for entry in result.agreements)
    assert result.cosine == result.mean_cosine == pytest.approx(1)
    assert result.agreements[0].shape == (2, 3, 32, 48)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda value: value + 0.3 * torch.randn(value.shape),
        lambda value: value.flip(1),
        lambda value: torch.full_like(value, float("nan")),
        lambda value: torch.zeros_like(value),
    ],
    ids=["noise", "channels", "nan", "zeros"],
)
def test_what_differs_fails(spoil):
    assert not check(spoil).passed


def test_a_file_that_says_the_same_of_every_picture_fails_whatever_its_cosine():
    """As a published artefact of EUPE did: nearly constant features, near the mean of the true ones."""
    constant = model(torch.full((1, 3, 32, 48), 0.5))
    by_rank = {value.ndim: value for value in constant}
    result = check(lambda value: by_rank[value.ndim].expand_as(value), least_cosine=0.9)
    assert result.cosine > 0.9
    assert not result.passed
    assert all(entry.answer == 0 for entry in result.agreements)


def test_one_bad_picture_in_a_batch_is_enough():
    def spoil(value):
        value = value.clone()
        value[1] = value[1].flip(0)
        return value

    assert not check(spoil).passed
    assert check(lambda value: value, count=3).passed


def test_the_bound_is_a_setting():
    def spoil(value):
        generator = torch_generator("rounding")
        return value + 0.05 * torch.randn(value.shape, generator=generator)

    assert not check(spoil).passed
    assert check(spoil, least_cosine=0.9).passed


def test_the_table_says_what_failed():
    out = io.StringIO()
    check(lambda value: -value).print(Console(file=out, width=80))
    text = out.getvalue()
    assert "failed" in text and "summary" in text and "2x3x32x48" in text and "-1.000000" in text
    facts = check(lambda value: value).facts()
    assert facts["passed"] is True and len(facts["agreements"]) == 2
