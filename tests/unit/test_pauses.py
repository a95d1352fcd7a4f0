# SPDX-License-Identifier: Apache-2.0
"""service.pauses"""

import pytest

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
def pauses(clock):
    made = stalls.Stalls()
    made.tick()
    return made


def test_nothing_is_suspected_of_a_service_that_was_not_started(clock):
    pauses = stalls.Stalls()
    came = pauses.now()
    clock.now += 100
    assert not pauses.was_given_away(came) and not pauses.is_waking()
    pauses.tick()
    assert not pauses.was_given_away(came) and not pauses.is_waking()


def test_ticks_in_time_are_no_pause(pauses, clock):
    came = pauses.now()
    for _ in range(20):
        clock.now += 2 * pauses.TICK
        assert not pauses.was_given_away(came) and not pauses.is_waking()
        pauses.tick()
    assert not pauses.was_given_away(came) and not pauses.is_waking()


@pytest.mark.parametrize('was_noticed', [False, True])
def test_what_came_before_a_pause_is_suspected(pauses, clock, was_noticed):
    came = pauses.now()
    clock.now += _LONG
    if was_noticed:
        pauses.tick()
        clock.now += 0.5
    assert pauses.was_given_away(came) and pauses.is_waking()


def test_what_comes_after_a_pause_is_not(pauses, clock):
    came = pauses.now()
    clock.now += _LONG
    for _ in range(3):
        pauses.tick()
        clock.now += pauses.TICK
    pauses.drained()
    assert pauses.was_given_away(came) and not pauses.is_waking()
    assert not pauses.was_given_away(pauses.now())


def test_it_is_waking_until_all_is_read_and_for_a_second(pauses, clock):
    clock.now += _LONG
    pauses.tick()
    pauses.drained()
    assert pauses.is_waking()
    for _ in range(10):
        clock.now += pauses.TICK
        pauses.tick()
        assert pauses.is_waking()
    pauses.drained()
    assert not pauses.is_waking()


def test_a_process_that_starves_itself_was_not_paused(pauses, clock):
    came = pauses.now()
    clock.now += _LONG
    clock.used += 0.8 * _LONG
    assert not pauses.was_given_away(came) and not pauses.is_waking()
    pauses.tick()
    assert not pauses.was_given_away(came) and not pauses.is_waking()
