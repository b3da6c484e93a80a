import threading
import time

import pytest

from eyespot.evaluate.probing.background import prepared


@pytest.mark.parametrize(("count", "workers"), [(0, 1), (1, 3), (10, 1), (10, 4), (3, 3)])
def test_results_come_in_order(count, workers):
    def make(number):
        time.sleep(0.002 * (number % 3))
        return number**2

    assert list(prepared(make, count, workers)) == [number**2 for number in range(count)]


def test_one_worker_keeps_the_order_of_the_calls():
    calls = []
    assert list(prepared(lambda number: calls.append(number), 20, 1)) == [None] * 20
    assert calls == list(range(20))


def test_it_is_at_most_one_more_than_the_workers_ahead():
    lock, made, ahead = threading.Lock(), 0, []

    def make(number):
        nonlocal made
        with lock:
            made += 1

    for taken, _ in enumerate(prepared(make, 40, 3)):
        time.sleep(0.001)
        with lock:
            ahead.append(made - taken)
    assert max(ahead) <= 4


def test_an_error_comes_where_its_result_would():
    results = prepared(lambda number: 1 // (2 - number), 5, 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_closing_it_stops_the_work():
    calls = []
    results = prepared(lambda number: calls.append(number), 1000, 2)
    next(results)
    results.close()
    assert len(calls) <= 3
