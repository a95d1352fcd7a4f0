# SPDX-License-Identifier: Apache-2.0
"""service.stalls"""

import pytest

from zmq_threaded import timings
from zmq_threaded.service import stalls

_LONG = 3.5


class Clock:
    """time, as a test says."""

    def __init__(self):
        self.now, self.used = 1000.0, 10.0

    def monotonic(self):
        return self.now

    def process_time(self):
        return self.used


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(stalls, 'time', made)
    return made


@pytest.fixture
def observed(clock):
    made = stalls.Stalls()
    made.tick()
    return made


def test_nothing_is_suspected_of_a_service_that_was_not_started(clock):
    observed = stalls.Stalls()
    came = observed.now()
    clock.now += 100
    assert not observed.was_given_away(came) and not observed.is_waking()
    observed.tick()
    assert not observed.was_given_away(came) and not observed.is_waking()


def test_ticks_in_time_are_no_stall(observed, clock):
    came = observed.now()
    for _ in range(20):
        clock.now += 2 * timings.STALL_TICK
        assert not observed.was_given_away(came) and not observed.is_waking()
        observed.tick()
    assert not observed.was_given_away(came) and not observed.is_waking()


@pytest.mark.parametrize('was_noticed', [False, True])
def test_what_came_before_a_stall_is_suspected(observed, clock, was_noticed):
    came = observed.now()
    clock.now += _LONG
    if was_noticed:
        observed.tick()
        clock.now += 0.5
    assert observed.was_given_away(came) and observed.is_waking()


def test_what_comes_after_a_stall_is_not(observed, clock):
    came = observed.now()
    clock.now += _LONG
    for _ in range(3):
        observed.tick()
        clock.now += timings.STALL_TICK
    observed.drained()
    assert observed.was_given_away(came) and not observed.is_waking()
    assert not observed.was_given_away(observed.now())


def test_it_is_waking_until_all_is_read_and_for_a_second(observed, clock):
    clock.now += _LONG
    observed.tick()
    observed.drained()
    assert observed.is_waking()
    for _ in range(10):
        clock.now += timings.STALL_TICK
        observed.tick()
        assert observed.is_waking()
    observed.drained()
    assert not observed.is_waking()


def test_a_process_that_starves_itself_did_not_stand_still(observed, clock):
    came = observed.now()
    clock.now += _LONG
    clock.used += 0.8 * _LONG
    assert not observed.was_given_away(came) and not observed.is_waking()
    observed.tick()
    assert not observed.was_given_away(came) and not observed.is_waking()
