import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from eyespot.data import DataConfig, PictureLoader
from eyespot.data.loading.sampling import SamplingPlan


def joined(plan, steps):
    draws = [plan.step(step) for step in steps]
    return tuple(np.concatenate([getattr(draw, name) for draw in draws]) for name in ("source", "index", "view"))


def equal(one, other):
    return one.step == other.step and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("source", "index", "view")
    )


plans = st.builds(
    dict,
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=4),
    batch_size=st.integers(1, 40),
    batches=st.sampled_from(["mixed", "homogeneous"]),
    seed=st.integers(0, 5),
)


@settings(max_examples=60, deadline=None)
@given(plans, st.booleans())
def test_every_epoch_of_a_source_is_a_permutation(arguments, weighted):
    sizes = arguments["sizes"]
    weights = [1 + number for number in range(len(sizes))] if weighted else None
    source, index, view = joined(SamplingPlan(**arguments, weights=weights), range(60))
    for number, size in enumerate(sizes):
        order = index[source == number]
        epochs = view[source == number]
        assert np.array_equal(epochs, np.arange(len(order)) // size)
        for start in range(0, len(order) - size + 1, size):
            assert sorted(order[start : start + size]) == list(range(size))


@settings(max_examples=30, deadline=None)
@given(plans, st.integers(0, 10**6))
def test_steps_can_be_asked_for_in_any_order(arguments, start):
    forwards, backwards = SamplingPlan(**arguments), SamplingPlan(**arguments)
    steps = range(start, start + 5)
    asked = {step: backwards.step(step) for step in reversed(steps)}
    assert all(equal(forwards.step(step), asked[step]) for step in steps)


def test_a_far_step_continues_what_came_before():
    """Positions over a block boundary and far into a run, against a count of all the draws before."""
    plan = SamplingPlan([7, 30, 11], 10, weights=[0.2, 0.5, 0.3])
    source, _, view = joined(plan, range(1000))
    seen = np.zeros(3, dtype=int)
    for at in range(len(source)):
        assert view[at] == seen[source[at]] // plan.sizes[source[at]]
        seen[source[at]] += 1
    late = plan.step(10**9)
    shares = np.array([0.2, 0.5, 0.3]) / plan.sizes
    assert np.allclose(late.view, 10**10 * shares[late.source], rtol=1e-6)


def test_default_weights_show_every_picture_equally_often():
    sizes = [100, 300, 5]
    source, index, _ = joined(SamplingPlan(sizes, 45), range(9 * 20))
    counts = [np.bincount(index[source == number], minlength=size) for number, size in enumerate(sizes)]
    assert {int(count) for per_source in counts for count in per_source} <= {19, 20, 21}


def test_homogeneous_batches_hold_one_source_each_with_the_wanted_share():
    plan = SamplingPlan([1000, 50], 16, weights=[0.9, 0.1], batches="homogeneous")
    chosen = []
    for step in range(3000):
        sources = set(plan.step(step).source.tolist())
        assert len(sources) == 1
        chosen.append(sources.pop())
    assert np.mean(chosen) == pytest.approx(0.1, abs=0.002)
    # In random order, not every tenth.
    gaps = np.diff(np.flatnonzero(chosen))
    assert gaps.min() == 1 and gaps.max() > 20


def test_mixed_batches_hold_all_sources_with_the_wanted_shares():
    plan = SamplingPlan([1000, 50], 50, weights=[3, 1])
    counts = [int(plan.step(step).source.sum()) for step in range(1000)]
    assert np.mean(counts) == pytest.approx(12.5, abs=0.05)
    assert np.std(counts) == pytest.approx(np.sqrt(50 * 0.25 * 0.75), rel=0.15)


def test_rare_sources_come_at_their_time():
    plan = SamplingPlan([10, 100_000], 1000)
    source, _, _ = joined(plan, range(500))
    assert (source == 0).sum() == pytest.approx(50, abs=15)


def test_views_repeat_when_their_number_is_set():
    free, limited = SamplingPlan([10], 5, seed=3), SamplingPlan([10], 5, views=3, seed=3)
    for step in range(20):
        assert np.array_equal(free.step(step).index, limited.step(step).index)
        assert np.array_equal(free.step(step).view % 3, limited.step(step).view)


def test_seed_and_epoch_change_the_order():
    orders = [joined(SamplingPlan([200], 200, seed=seed), [epoch])[1] for seed in (0, 1) for epoch in (0, 1)]
    assert all(not np.array_equal(one, other) for one, other in itertools.combinations(orders, 2))


def test_order_is_the_same_on_every_machine():
    """A change here changes every run that anyone has begun."""
    draws = SamplingPlan([5, 9], 8, seed=1).step(3)
    assert draws.source.tolist() == [1, 1, 0, 1, 0, 1, 1, 1]
    assert draws.index.tolist() == [8, 4, 1, 2, 3, 6, 7, 5]
    assert draws.view.tolist() == [2, 2, 0, 2, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "at least 1"),
        ({"sizes": []}, "at least one picture"),
        ({"sizes": [3, 0]}, "at least one picture"),
        ({"weights": [1]}, "one weight per source"),
        ({"weights": [1, -1]}, "positive"),
        ({"weights": [1, 0]}, "leave out"),
        ({"weights": [1, float("nan")]}, "positive"),
        ({"weights": [1, float("inf")]}, "positive"),
        ({"weights": [1, 1e-9]}, "larger weight"),
    ],
)
def test_wrong_arguments_say_what_would_be_right(arguments, message):
    with pytest.raises(ValueError, match=message):
        SamplingPlan(**{"sizes": [3, 4], "batch_size": 2, **arguments})


def test_steps_before_the_first_are_refused():
    with pytest.raises(ValueError, match="from 0"):
        SamplingPlan([3], 2).step(-1)


@settings(max_examples=40, deadline=None)
@given(plans, st.integers(1, 4))
def test_repeats_of_a_picture_are_different_views(arguments, repeats):
    """Over the steps: the pictures of the plan without repeats, each as often as it says, no view of any twice."""
    plan = SamplingPlan(**arguments, repeats=repeats)
    draws = [plan.step(step) for step in range(4 * repeats)]
    assert all(len(draw.index) == plan.batch_size for draw in draws)
    rows = [(s, i, v) for d in draws for s, i, v in zip(d.source, d.index, d.view, strict=True)]
    assert len(set(rows)) == len(rows)
    seen = {}
    for source, index, view in rows:
        seen.setdefault((source, index, view // repeats), set()).add(view % repeats)
    cut_short = sum(views != set(range(repeats)) for views in seen.values())
    # with homogeneous batches a picture's last views may wait for the next batch of its source
    assert cut_short <= (len(plan.sizes) if plan.batches == "homogeneous" else 0)


@settings(max_examples=30, deadline=None)
@given(plans, st.integers(2, 4), st.integers(1, 6))
def test_a_batch_with_repeats_has_the_pictures_of_a_smaller_one(arguments, repeats, pictures):
    arguments["batch_size"] = pictures
    small = SamplingPlan(**arguments)
    large = SamplingPlan(**{**arguments, "batch_size": repeats * pictures}, repeats=repeats)
    for step in (0, 1, 1000):
        one, several = small.step(step), large.step(step)
        for number in range(repeats):
            part = several[number * pictures : (number + 1) * pictures]
            assert np.array_equal(part.source, one.source) and np.array_equal(part.index, one.index)
            assert np.array_equal(part.view, one.view * repeats + number)


@settings(max_examples=20, deadline=None)
@given(plans, st.integers(1, 4), st.integers(0, 10**6))
def test_steps_with_repeats_can_be_asked_for_in_any_order(arguments, repeats, start):
    forwards, backwards = (SamplingPlan(**arguments, repeats=repeats) for _ in range(2))
    asked = {step: backwards.step(step) for step in reversed(range(start, start + 4))}
    assert all(equal(forwards.step(step), asked[step]) for step in asked)


def test_views_of_repeats_stay_apart_when_their_number_is_set():
    plan = SamplingPlan([10], 6, views=5, repeats=3)
    for step in range(40):
        draw = plan.step(step)
        assert draw.view.max() < 5
        rows = set(zip(draw.index.tolist(), draw.view.tolist(), strict=True))
        assert len(rows) == 6 and len(set(draw.index.tolist())) == 2


def test_an_epoch_of_steps_sees_a_third_of_the_pictures():
    """As many steps as without repeats (papers/vanillakd.md, section c), and all pictures in three such epochs."""
    _, index, _ = joined(SamplingPlan([96], 12, repeats=3), range(8))
    assert np.array_equal(np.sort(np.unique(index, return_counts=True)[1]), [3] * 32)
    _, index, _ = joined(SamplingPlan([96], 12, repeats=3), range(24))
    assert np.array_equal(np.bincount(index), [3] * 96)


class Squares:
    """Grey squares, each of its own shade."""

    name, classes = "squares", None

    def __len__(self):
        return 20

    def read(self, index):
        rows = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
        return Image.fromarray(rows + index)

    def picture_name(self, index):
        return str(index)

    def label(self, index):
        return None

    def fingerprint(self):
        return "squares"


@pytest.mark.parametrize("workers", [0, 2])
def test_repeated_views_are_the_same_for_ranks_workers_and_after_a_resume(workers):
    config = DataConfig(sources=["squares"], size=8, repeats=3, workers=workers)
    whole = PictureLoader(config, 12, sources=[Squares()]).batch(5)
    halves = [PictureLoader(config, 12, rank, 2, sources=[Squares()]).batches(5) for rank in range(2)]
    batches = [next(half) for half in halves]
    for name in ("images", "index", "view"):
        assert torch.equal(torch.cat([batch[name] for batch in batches]), whole[name])
    assert torch.equal(whole["index"][:4], whole["index"][8:])
    assert not torch.equal(whole["images"][:4], whole["images"][8:])
    for half in halves:
        half.close()


@pytest.mark.parametrize(
    ("arguments", "message"), [({"repeats": 0}, "at least 1"), ({"repeats": 3, "views": 2}, "raise views")]
)
def test_wrong_repeats_say_what_would_be_right(arguments, message):
    with pytest.raises(ValueError, match=message):
        SamplingPlan([3], 2, **arguments)
    with pytest.raises(ValueError, match=message if "views" in arguments else "greater than or equal to 1"):
        DataConfig(**arguments)
