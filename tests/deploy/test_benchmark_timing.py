import pytest

from eyespot.deploy.benchmark.contest import achieved
from eyespot.deploy.benchmark.memory import PeakMemory
from eyespot.deploy.benchmark.peak import MatrixPeak
from eyespot.deploy.benchmark.table import Group
from eyespot.deploy.benchmark.timing import Series, Turn, paired, quartiles, take_turns


def test_ratios_are_taken_within_rounds() -> None:
    # The machine is ten times slower in the second round; the ratio of each round is 2 all the same.
    eager, other = [4.0, 40.0, 4.0], [2.0, 20.0, 2.0]
    ratio = paired(eager, other)
    assert ratio is not None
    assert (ratio.median, ratio.low, ratio.high) == (2.0, 2.0, 2.0)


def test_median_and_quartiles_of_ratios_by_hand() -> None:
    ratio = paired([1.0, 2.0, 3.0, 4.0, 5.0], [1.0] * 5)
    assert ratio is not None
    assert (ratio.low, ratio.median, ratio.high) == (2.0, 3.0, 4.0)


def test_rounds_with_a_missing_side_do_not_count() -> None:
    ratio = paired([6.0, None, 8.0], [2.0, 1.0, None])
    assert ratio is not None
    assert ratio.median == 3.0
    assert paired([None], [1.0]) is None
    assert paired([], []) is None


def test_latency_and_tail_are_over_all_runs() -> None:
    series = Series([Turn([1.0, 2.0, 3.0]), Turn([4.0, 5.0])])
    assert series.latency == 3.0
    assert series.by_round == [2.0, 4.5]
    assert series.p95 == pytest.approx(4.8)  # linear between the 4th and the 5th of 5


def test_energy_is_per_run_and_unknown_if_it_is_unknown_of_a_turn() -> None:
    assert Series([Turn([1.0, 1.0], 3.0), Turn([1.0], 3.0)]).joules == 2.0
    assert Series([Turn([1.0, 1.0], 3.0), Turn([1.0], None)]).joules is None
    assert Series().joules is None


def test_idle_is_weighted_by_time() -> None:
    series = Series([Turn([1.0], rested=9.9, restless=0.0), Turn([1.0], rested=0.1, restless=0.1)])
    assert series.idle == pytest.approx(0.01)
    assert Series().idle == 0.0


def test_one_value_is_its_own_quartiles() -> None:
    assert quartiles([7.0]) == quartiles([7.0, 7.0])


def test_turns_are_taken_one_at_a_time_and_every_second_round_backwards() -> None:
    called: list[str] = []
    take_turns([lambda name=name: called.append(name) for name in "abc"], rounds=3)
    assert "".join(called) == "abccbaabc"


def test_achieved_speed_counts_a_multiply_accumulate_twice() -> None:
    group = Group("m", (64, 64), batch=4, gmacs=1.5)
    assert achieved(group, [0.5, 2.0]) == [24.0, 6.0]
    assert achieved(Group("m", (64, 64), batch=4), [0.5]) == [None]


def test_matrix_peak_is_the_same_order_in_two_measurements() -> None:
    peak = MatrixPeak(shapes=((128, 128, 128),))
    first, second = peak.measure(), peak.measure()
    assert set(first) == {"float32", "bfloat16", "int8"}
    assert first["float32"] is not None and second["float32"] is not None
    assert 0.01 < first["float32"] / second["float32"] < 100
    assert all(speed is None or speed > first["float32"] for key, speed in first.items() if key != "float32")


def test_peak_memory_sees_what_was_given_back() -> None:
    memory = PeakMemory()
    if memory.mebibytes() is None:
        pytest.skip("this system does not tell the peak of resident memory")
    block = bytearray(b"x" * (64 << 20))
    del block
    assert 50 < (memory.mebibytes() or 0) < 200
    assert (PeakMemory().mebibytes() or 0) < 40  # begins anew
