"""The token bucket, with time handed in."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overspill._core.limiter import Limiter
from overspill.options import RateLimit


def limiter(rate=10.0, burst=5):
    return Limiter(RateLimit(rate, burst=burst))


def test_a_burst_passes_at_once_and_the_next_waits_for_one_token():
    bucket = limiter(rate=10, burst=5)
    assert [bucket.take(0.0) for _ in range(5)] == [0.0] * 5
    assert bucket.take(0.0) == pytest.approx(0.1)
    assert bucket.take(0.05) == pytest.approx(0.05)
    assert bucket.take(0.11) == 0.0


def test_a_refusal_takes_nothing():
    bucket = limiter(rate=10, burst=5)
    assert bucket.take(0.0, 5) == 0.0
    for _ in range(100):
        assert bucket.take(0.0, 3) == pytest.approx(0.3)
    assert bucket.take(0.301, 3) == 0.0


def test_an_idle_bucket_holds_no_more_than_the_burst():
    bucket = limiter(rate=10, burst=5)
    bucket.take(0.0)
    assert bucket.take(1e6, 5) == 0.0
    assert bucket.take(1e6) > 0


def test_a_batch_larger_than_the_bucket_passes_when_it_is_full_and_is_worked_off():
    bucket = limiter(rate=10, burst=5)
    assert bucket.take(0.0, 25) == 0.0
    assert bucket.available(0.0) == -20
    assert bucket.take(0.0) == pytest.approx(2.1)
    assert bucket.take(2.0) > 0
    assert bucket.take(2.11) == 0.0
    # Another large one waits for a full bucket, not for 25 tokens that will never be.
    assert bucket.take(2.11, 25) == pytest.approx(0.49, abs=0.02)
    assert bucket.take(2.61, 25) == 0.0


def test_a_clock_that_goes_back_a_little_gives_nothing_twice():
    bucket = limiter(rate=10, burst=5)
    assert bucket.take(100.0, 5) == 0.0
    for _ in range(1000):  # two threads whose readings cross
        assert bucket.take(100.0 - 0.05) > 0
        assert bucket.take(100.0) > 0
    wait_s = bucket.take(99.95)
    assert wait_s == pytest.approx(0.15)
    assert bucket.take(99.95 + wait_s) == 0.0


def test_a_clock_that_was_set_back_does_not_stop_the_queue():
    bucket = limiter(rate=10, burst=5)
    assert bucket.take(1e9, 5) == 0.0
    assert bucket.take(50.0) == pytest.approx(0.1)
    assert bucket.take(50.11) == 0.0


def test_given_back_tokens_can_be_taken_again_but_never_overfill():
    bucket = limiter(rate=10, burst=5)
    bucket.take(0.0, 5)
    bucket.give_back(2)
    assert bucket.take(0.0, 2) == 0.0
    bucket.give_back(100)
    assert bucket.available(0.0) == 5


@given(
    rate=st.floats(1e-3, 1e7),
    burst=st.integers(1, 10_000),
    start=st.floats(0, 2e9),
    asks=st.lists(st.tuples(st.floats(0, 10), st.integers(1, 20_000)), max_size=30),
)
def test_the_wait_that_is_named_is_enough(rate, burst, start, asks):
    bucket = limiter(rate, burst)
    now = start
    for pause, n in asks:
        now += pause
        wait_s = bucket.take(now, n)
        assert wait_s >= 0 and math.isfinite(wait_s)
        if wait_s:
            now += wait_s
            assert bucket.take(now, n) == 0.0


@given(
    rate=st.floats(0.1, 1000),
    burst=st.integers(1, 50),
    pauses=st.lists(st.floats(0, 0.5), min_size=1, max_size=200),
)
def test_no_span_of_time_lets_more_pass_than_burst_and_rate_allow(rate, burst, pauses):
    bucket = limiter(rate, burst)
    now, passed = 1000.0, []
    for pause in pauses:
        now += pause
        if bucket.take(now) == 0.0:
            passed.append(now)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            span = passed[last] - passed[first]
            assert last - first + 1 <= burst + rate * span + 1e-6
