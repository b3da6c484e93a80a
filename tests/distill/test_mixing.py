"""Mixup and CutMix: against timm's own, and as pure functions of their keys."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from timm.data.mixup import mixup_target

from eyespot.data import DataConfig, PictureLoader
from eyespot.distill.classes.config import MixConfig
from eyespot.distill.classes.mixing import is_labelled, mix, partners_of
from eyespot.engine.trainer import split_batch

CLASSES = 7


def batch(size: int = 6, side: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(size)
    images = torch.rand(size, 3, side, side + 4, generator=generator)
    return images, torch.randint(0, CLASSES, (size,), generator=generator)


def share_of(targets: torch.Tensor, labels: torch.Tensor) -> float:
    """How much of the first picture there is, by the targets of a pair of different classes."""
    row = next(i for i in range(len(labels)) if labels[i] != labels[-1 - i])
    return targets[row, labels[row]].item()


def test_by_default_nothing_is_mixed() -> None:
    images, labels = batch()
    mixed, targets = mix(images, labels, CLASSES, MixConfig(), 0, 1)
    assert mixed is images
    assert torch.equal(targets, F.one_hot(labels, CLASSES).float())


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7])
def test_mixup_is_a_weighted_sum(size: int) -> None:
    images, labels = batch(size)
    before = images.clone()
    mixed, targets = mix(images, labels, CLASSES, MixConfig(mixup=1.0), 0, 5)
    share = float(targets[0, labels[0]]) if size > 1 and labels[0] != labels[-1] else None
    assert torch.equal(images, before)
    if share is not None:
        torch.testing.assert_close(mixed, images * share + images.flip(0) * (1 - share), rtol=0, atol=1e-6)
        torch.testing.assert_close(targets, mixup_target(labels, CLASSES, share))
    if size % 2:
        torch.testing.assert_close(mixed[size // 2], images[size // 2])
        assert torch.allclose(targets[size // 2], F.one_hot(labels[size // 2], CLASSES).float())
    torch.testing.assert_close(targets.sum(1), torch.ones(size))


@pytest.mark.parametrize("size", [1, 2, 5, 6])
def test_cutmix_lays_a_rectangle_on_it_whose_area_counts(size: int) -> None:
    images, labels = batch(size)
    labels = torch.arange(size)
    for step in range(20):
        mixed, targets = mix(images, labels, CLASSES, MixConfig(cutmix=1.0), 0, step)
        foreign = (mixed != images).any(1)
        assert torch.equal(mixed, torch.where(foreign[:, None], images.flip(0), images))
        if size > 1:
            rows, columns = foreign[0].any(1).nonzero(), foreign[0].any(0).nonzero()
            area = len(rows) * len(columns)
            assert foreign[0].sum() == area  # a full rectangle
            assert share_of(targets, labels) == pytest.approx(1 - area / (16 * 20), abs=1e-6)


def test_shares_follow_their_distributions() -> None:
    """Mixup .1 hardly mixes, 1.0 evenly; with both, a quarter of the batches is cut as asked."""
    images, labels = batch(2)
    labels = torch.tensor([0, 1])

    def shares(config: MixConfig) -> np.ndarray:
        drawn = [mix(images, labels, CLASSES, config, 3, step)[1] for step in range(600)]
        return np.array([float(targets[0, 0]) for targets in drawn])

    even, tenth = shares(MixConfig(mixup=1.0)), shares(MixConfig(mixup=0.1))
    assert np.mean(even) == pytest.approx(0.5, abs=0.05) and np.std(even) == pytest.approx(12**-0.5, abs=0.03)
    assert np.std(tenth) == pytest.approx((1 / (4 * 1.2)) ** 0.5, abs=0.03)  # of Beta(.1, .1)
    assert np.mean(shares(MixConfig(mixup=1.0, probability=0.3)) == 1) == pytest.approx(0.7, abs=0.06)
    both = MixConfig(mixup=1.0, cutmix=1.0, switch_probability=0.25)
    cut = [bool((mix(images, labels, CLASSES, both, 3, step)[0] == images).any()) for step in range(600)]
    assert np.mean(cut) == pytest.approx(0.25, abs=0.06)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9), st.integers(0, 10**6), st.sampled_from([(0.2, 0.0), (0.0, 1.0), (0.8, 1.0)]), st.floats(0, 0.5)
)
def test_properties(size: int, step: int, alphas: tuple[float, float], smoothing: float) -> None:
    images, labels = batch(size, side=5)
    config = MixConfig(mixup=alphas[0], cutmix=alphas[1], label_smoothing=smoothing)
    mixed, targets = mix(images, labels, CLASSES, config, "a", step)
    again, same_targets = mix(images, labels, CLASSES, config, "a", step)
    assert torch.equal(mixed, again) and torch.equal(targets, same_targets)
    assert mixed.shape == images.shape and mixed.dtype == images.dtype
    assert mixed.min() >= 0 and mixed.max() <= 1
    torch.testing.assert_close(targets.sum(1), torch.ones(size))
    assert targets.min() >= smoothing / CLASSES - 1e-6
    # a pair is mixed alone as it is within its batch
    if size % 2 == 0:
        pair = torch.tensor([0, size - 1])
        part, _ = mix(images[pair], labels[pair], CLASSES, config, "a", step)
        assert torch.equal(part, mixed[pair])


@pytest.mark.parametrize(
    ("size", "ranks", "parts"), [(12, 2, 1), (12, 2, 3), (12, 4, 3), (9, 3, 2), (6, 6, 1), (7, 1, 4)]
)
def test_a_batch_in_parts_is_mixed_as_a_whole(tmp_path: Path, size: int, ranks: int, parts: int) -> None:
    """What a picture is mixed with depends on its place in the batch of all processes and micro-batches, only."""
    draws = np.random.default_rng(0)
    for number in range(20):
        place = tmp_path / f"{number % 3}" / f"{number}.png"
        place.parent.mkdir(exist_ok=True)
        Image.fromarray(draws.integers(0, 256, (10, 10, 3), dtype=np.uint8)).save(place)
    data = DataConfig(sources=[str(tmp_path)], size=8)
    config = MixConfig(mixup=0.8, cutmix=1.0)

    def mixed(batch: Any, **known: Any) -> Any:
        return mix(batch["images"].float() / 255, batch["labels"], CLASSES, config, batch["step"], **known)

    for step in range(3):
        whole = PictureLoader(data, size).batch(step)
        expected = {
            (index.item(), view.item()): rows
            for index, view, *rows in zip(whole["index"], whole["view"], *mixed(whole), strict=True)
        }
        for rank in range(ranks):
            batch = PictureLoader(data, size, rank, ranks, in_pairs=True).batch(step)
            batch = {**batch, "partners": partners_of(batch)}
            for part in split_batch(batch, parts):
                others = part["partners"]["images"].float() / 255, part["partners"]["labels"]
                found = mixed(part, partners=others)
                for index, view, *rows in zip(part["index"], part["view"], *found, strict=True):
                    for one, other in zip(rows, expected.pop((index.item(), view.item())), strict=True):
                        assert torch.equal(one, other)
        assert not expected


def test_white_stays_within_range() -> None:
    white = torch.ones(4, 3, 4, 4)
    for step in range(50):
        assert mix(white, None, CLASSES, MixConfig(mixup=1.0), step)[0].max() <= 1


def test_smoothing_is_that_of_timm_and_of_torch() -> None:
    images, labels = batch()
    _, targets = mix(images, labels, CLASSES, MixConfig(label_smoothing=0.1), 0)
    logits = torch.randn(6, CLASSES, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        F.cross_entropy(logits, targets), F.cross_entropy(logits, labels, label_smoothing=0.1), rtol=1e-6, atol=1e-6
    )


def test_pictures_without_labels_are_mixed_and_have_no_targets() -> None:
    images, labels = batch(6)
    with_all, _ = mix(images, labels, CLASSES, MixConfig(mixup=1.0), 0, 2)
    labels[1] = -1
    mixed, targets = mix(images, labels, CLASSES, MixConfig(mixup=1.0), 0, 2)
    assert torch.equal(mixed, with_all)
    assert is_labelled(targets).tolist() == [True, False, True, True, False, True]  # and its partner
    assert not targets[[1, 4]].any()
    _, plain = mix(images, labels, CLASSES, MixConfig(label_smoothing=0.1), 0, 2)
    assert is_labelled(plain).tolist() == [True, False, True, True, True, True]
    mixed, none = mix(images, None, CLASSES, MixConfig(mixup=1.0), 0, 2)
    assert none is None and torch.equal(mixed, with_all)


def test_nobody_elses_draws_change() -> None:
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    images, labels = batch()
    mix(images, labels, CLASSES, MixConfig(cutmix=1.0), 0, 1)
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


@pytest.mark.parametrize(
    "wrong", [{"mixup": -1.0}, {"cutmix": -0.1}, {"probability": 1.1}, {"label_smoothing": 1.0}, {"mix": 0.1}]
)
def test_wrong_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        MixConfig(**wrong)
