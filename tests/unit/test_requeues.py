# SPDX-License-Identifier: Apache-2.0
"""service.requeues"""

import dataclasses
import threading

import pytest

from zmq_threaded.service import requeues as module

LIMIT = 10


@dataclasses.dataclass
class Request:
    id: bytes


class Clock:
    """time, as a test says."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(module, 'time', made)
    return made


@pytest.fixture
def given_back():
    return []


@pytest.fixture
def requeues(clock, given_back):
    return module.Requeues(LIMIT, given_back.append)


def delay(requeues, clock, given_back, request):
    """Seconds after which it is given back."""
    requeues.put(request)
    requeues.turn()
    began = clock.now
    assert not given_back
    while not given_back:
        clock.now = requeues.turn()
        requeues.turn()
    assert given_back.pop() is request and not given_back
    return round(clock.now - began, 6)


def test_the_delay_doubles_for_a_message_that_comes_back(
        requeues, clock, given_back):
    one, two = Request(b'1'), Request(b'2')
    delays = [delay(requeues, clock, given_back, one) for _ in range(9)]
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5]
    assert delay(requeues, clock, given_back, two) == 0.1
    clock.now += 61
    assert delay(requeues, clock, given_back, one) == 0.1


def test_nothing_is_due_while_there_is_nothing(requeues):
    assert requeues.turn() == float('inf')


def test_what_waits_is_bounded(requeues, given_back):
    many = [Request(b'%d' % number) for number in range(3 * LIMIT)]
    for request in many:
        requeues.put(request)
    requeues.turn()
    assert given_back == many[:2 * LIMIT]
    assert len(requeues._delayed) == LIMIT


def test_what_is_remembered_is_bounded(requeues, monkeypatch):
    monkeypatch.setattr(module, '_REMEMBERED_LIMIT', 7)
    for number in range(30):
        requeues.put(Request(b'%d' % number))
        requeues.turn()
    assert len(requeues._waits) == 7


def test_at_the_end_all_go_at_once(requeues, given_back):
    waiting, new, late = (Request(b'%d' % number) for number in range(3))
    requeues.put(waiting)
    requeues.turn()
    requeues.put(new)
    requeues.close()
    requeues.put(late)
    assert set(map(id, given_back)) == {id(waiting), id(new), id(late)}


def test_none_is_lost_or_given_back_twice_at_the_end(eager_switching):
    for _ in range(20):
        given_back = []
        requeues = module.Requeues(LIMIT, given_back.append)
        threads = [threading.Thread(target=lambda: [
            requeues.put(Request(b'')) for _ in range(100)])
            for _ in range(4)]
        for thread in threads:
            thread.start()
        requeues.turn()
        requeues.close()
        for thread in threads:
            thread.join()
        assert len(given_back) == len({id(each) for each in given_back}) == 400
