# SPDX-License-Identifier: Apache-2.0
"""Waits that grow with each failure."""

import pytest

from zmq_threaded import backoff


def test_waits_double_from_the_first_to_the_last():
    made = backoff.Backoff(0.1, 1.0)
    assert [made.failed(0.0) for _ in range(6)] == pytest.approx(
        [0.1, 0.2, 0.4, 0.8, 1.0, 1.0])


def test_a_success_begins_anew():
    made = backoff.Backoff(0.1, 1.0)
    made.failed(5.0)
    made.failed(5.0)
    made.succeeded()
    assert (made.seconds, made.until) == (0.0, 0.0)
    assert not made.is_waiting(5.0)
    assert made.failed(5.0) == 0.1


def test_it_waits_from_the_failure_on():
    made = backoff.Backoff(0.5, 4.0)
    assert not made.is_waiting(0.0)
    made.failed(10.0)
    assert made.until == 10.5
    assert made.is_waiting(10.4)
    assert not made.is_waiting(10.5)


def test_growth_is_what_it_is_told():
    made = backoff.Backoff(1.0, 3.0, growth=1.5)
    assert [made.failed(0.0) for _ in range(4)] == [1.0, 1.5, 2.25, 3.0]


def test_a_first_wait_that_is_longer_than_the_last_is_cut():
    assert backoff.Backoff(2.0, 1.0).failed(0.0) == 1.0


def test_jitter_shortens_a_wait_and_not_the_growth():
    made = backoff.Backoff(1.0, 4.0, jitter=0.5)
    for expected in (1.0, 2.0, 4.0, 4.0):
        wait = made.failed(100.0)
        assert expected / 2 <= wait <= expected
        assert made.seconds == expected
        assert made.until == 100.0 + wait


def test_jitter_differs():
    waits = {backoff.Backoff(1.0, 4.0, jitter=0.5).failed(0.0)
             for _ in range(20)}
    assert len(waits) > 1


def test_after_thousands_of_failures_the_wait_is_the_last():
    made = backoff.Backoff(0.1, 5.0)
    for _ in range(5000):
        made.failed(0.0)
    assert made.seconds == 5.0
