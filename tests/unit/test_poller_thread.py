# SPDX-License-Identifier: Apache-2.0
"""The threads that services share."""

import math
import os
import threading
import time

import pytest

from tests.support import waiting
from zmq_threaded import counters
from zmq_threaded import finished
from zmq_threaded.service import crews
from zmq_threaded.service import reply_thread


class Member:
    """A service as its threads see it; its descriptor is that of a pipe."""

    def __init__(self):
        self.fd, self._writer = os.pipe()
        self.turns, self.left, self.fails = 0, math.inf, False
        self.is_stopping = False
        self.thread = None
        self.end = finished.Finished()

    def make_readable(self):
        os.write(self._writer, b'.')

    def turn(self):
        self.turns += 1
        self.thread = threading.current_thread()
        if self.fails:
            raise ValueError('a fault of one service')
        return time.monotonic() + self.left

    def is_behind(self):
        return self.left < math.inf

    def finish(self):
        self.end.set()

    def close(self):
        os.close(self.fd)
        os.close(self._writer)


@pytest.fixture
def members():
    made = [Member(), Member()]
    yield made
    for each in made:
        each.close()


@pytest.fixture
def counted():
    return counters.Counters()


@pytest.fixture
def crew(counted):
    made = crews.Crews(counted)
    joined = made.join('test', True)
    yield joined
    made.leave(joined, time.monotonic() + 10)


@pytest.fixture(params=['poller', 'replies'])
def thread(request, crew):
    return getattr(crew, request.param)


def until_turns(member, count):
    waiting.until(lambda: member.turns >= count)


def test_who_is_woken_has_a_turn_and_others_have_not(thread, members):
    first, second = members
    for each in members:
        thread.add(each)
        thread.wake(each)
        until_turns(each, 1)
    before = second.turns
    for _ in range(20):
        turns = first.turns
        thread.wake(first)
        until_turns(first, turns + 1)
    # Besides the turns that all have about once a second
    assert second.turns - before < 10
    assert first.thread is second.thread


def test_all_have_a_turn_about_once_a_second(thread, members):
    for each in members:
        thread.add(each)
    for each in members:
        until_turns(each, 3)


def test_the_fault_of_one_is_no_harm_to_others(thread, members, counted):
    first, second = members
    for each in members:
        thread.add(each)
    first.fails = True
    thread.wake(first)
    waiting.until(lambda: counted.snapshot().get('loop_errors'))
    turns = second.turns
    thread.wake(second)
    until_turns(second, turns + 1)


def test_who_was_woken_with_one_that_fails_has_the_next_turn(members,
                                                             counted):
    made = reply_thread.ReplyThread('not started', counted)
    first, second = members
    first.fails = True
    for each in members:
        made._members[each] = None
        made.wake(each)
    made._next_tick = time.monotonic() + 100
    with pytest.raises(ValueError):
        made._turn()
    assert second.turns == 0 and made._time_to_wait() == 0
    made._turn()
    assert second.turns == 1 and made._time_to_wait() > 90
    made.stop()


def test_who_has_more_to_do_has_its_next_turn_soon(thread, members):
    first, _ = members
    first.left = 0.001
    thread.add(first)
    thread.wake(first)
    until_turns(first, 20)
    first.left = math.inf


def test_who_stops_has_no_turn_after_its_end(thread, members):
    first, second = members
    for each in members:
        thread.add(each)
    first.is_stopping = True
    thread.wake(first)
    assert first.end.wait(time.monotonic() + 10)
    turns = first.turns
    thread.wake(first)
    until_turns(second, second.turns + 2)
    assert first.turns == turns
    assert first.end.is_set() and first.end.wait(time.monotonic())


def test_a_readable_descriptor_is_a_turn_until_it_is_not_watched(crew,
                                                                 members):
    first, _ = members
    crew.poller.add(first)
    first.make_readable()
    until_turns(first, 30)
    crew.poller.unwatch(first.fd)
    time.sleep(0.05)
    turns = first.turns
    time.sleep(0.1)
    assert first.turns - turns < 3


def test_an_end_that_does_not_come_is_waited_for_in_vain():
    assert not finished.Finished().wait(time.monotonic() + 0.01)


@pytest.fixture
def made(counted):
    """Crews, of which all own ones are taken."""
    all_crews = crews.Crews(counted)
    all_crews.own = [all_crews.join(f'own-{number}', True)
                     for number in range(crews.OWN)]
    yield all_crews
    for each in all_crews.own:
        assert all_crews.leave(each, time.monotonic() + 10)


def test_the_first_services_have_crews_of_their_own(made):
    assert len(set(made.own)) == crews.OWN


def test_services_beyond_them_share_one_until_the_last_has_left(made):
    deadline = time.monotonic() + 10
    first, second = made.join('a', True), made.join('b', True)
    assert first is second and first not in made.own
    assert made.leave(first, deadline)
    assert made.join('d', True) is second
    assert made.leave(second, deadline) and made.leave(second, deadline)
    other = made.join('e', True)
    assert other is not first
    assert made.leave(other, deadline)


def test_who_may_not_share_never_does(made):
    deadline = time.monotonic() + 10
    shared, own = made.join('a', True), made.join('b', False)
    assert own is not shared and own not in made.own
    assert made.leave(own, deadline) and made.leave(shared, deadline)


def test_the_place_of_an_own_crew_that_ended_is_taken_by_the_next(made):
    deadline = time.monotonic() + 10
    shared = made.join('a', True)
    assert made.leave(made.own.pop(), deadline)
    made.own.append(made.join('b', True))
    assert made.own[-1] is not shared
    assert made.leave(shared, deadline)
