import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyespot.data.sampling import SamplingPlan


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
