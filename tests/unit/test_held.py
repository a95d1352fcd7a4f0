# SPDX-License-Identifier: Apache-2.0
"""Which messages a service holds, and which it has acknowledged lately."""

import collections
import dataclasses
import statistics
import threading
import time

import pytest

from tests.support import waiting
from zmq_threaded.service import held as helds

FOR_LONG = 1000.0


@dataclasses.dataclass
class Message:
    """What Held needs of an Incoming."""

    id: bytes


def messages(count):
    return [Message(number.to_bytes(16, 'big')) for number in range(count)]


@pytest.fixture
def held():
    return helds.Held(FOR_LONG)


@pytest.fixture
def message():
    return Message(b'm' * 16)


def test_nothing_is_held_at_first(held, message):
    assert len(held) == 0
    assert held.get(message.id) is None
    assert not held.was_seen(message.id)


def test_message_is_held_until_it_is_acknowledged(held, message):
    held.add(message)
    assert (len(held), held.get(message.id)) == (1, message)
    assert not held.was_seen(message.id)
    held.release(message)
    assert (len(held), held.get(message.id)) == (0, None)
    assert held.was_seen(message.id)


def test_call_that_is_run_is_known_and_not_held(held, message):
    held.add(message)
    held.begin(message)
    assert (len(held), held.get(message.id)) == (0, message)
    assert not held.was_seen(message.id)
    held.forget(message)
    assert held.get(message.id) is None
    assert not held.was_seen(message.id)


def test_message_that_was_forgotten_was_never_there(held, message):
    held.add(message)
    held.forget(message)
    assert (len(held), held.get(message.id)) == (0, None)
    assert not held.was_seen(message.id)


def test_forgetting_and_releasing_twice_is_harmless(held, message):
    held.add(message)
    for _ in range(2):
        held.release(message)
        held.forget(message)
    assert len(held) == 0
    assert held.was_seen(message.id)


def test_messages_do_not_disturb_each_other(held):
    one, two, three = messages(3)
    for each in (one, two, three):
        held.add(each)
    held.begin(one)
    held.release(two)
    assert len(held) == 1
    assert [held.get(each.id) for each in (one, two, three)] == [
        one, None, three]
    assert [held.was_seen(each.id) for each in (one, two, three)] == [
        False, True, False]


def test_acknowledged_ids_are_remembered_for_a_time(message):
    held = helds.Held(ttl=0.2)
    held.add(message)
    held.release(message)
    waiting.until(lambda: _is_forgotten(held, message.id))
    assert not held._seen


@pytest.mark.parametrize('look', [True, False])
def test_memory_is_bounded(monkeypatch, look):
    monkeypatch.setattr(helds, '_SEEN_LIMIT', 10)
    held = helds.Held(FOR_LONG)
    many = messages(35)
    for message in many:
        held.add(message)
        held.release(message)
        if look:
            held.was_seen(message.id)
        assert len(held._seen) + len(held._released) <= 20
    seen = [held.was_seen(message.id) for message in many]
    assert seen == [False] * 25 + [True] * 10
    assert len(held._seen) == 10


def test_to_remember_takes_no_longer_once_the_first_are_forgotten(
        monkeypatch):
    monkeypatch.setattr(helds, '_SEEN_LIMIT', 20_000)
    held, many = helds.Held(FOR_LONG), messages(60_000)

    def usual(part):
        took = []
        for start in range(0, len(part), 1000):
            began = time.perf_counter()
            for message in part[start:start + 1000]:
                held.add(message)
                held.release(message)
                held.was_seen(message.id)
            took.append(time.perf_counter() - began)
        return statistics.median(took)
    young = usual(many[:20_000])
    assert usual(many[20_000:]) < 5 * young


def test_threads_release_what_the_poller_adds(held, eager_switching):
    shares = [messages(20_000)[start::4] for start in range(4)]
    for share in shares:
        for message in share:
            held.add(message)

    def release(share):
        for message in share:
            held.release(message)

    threads = [threading.Thread(target=release, args=(share,))
               for share in shares]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        held.was_seen(b'')
    assert len(held) == 0
    assert all(held.was_seen(message.id)
               for share in shares for message in share)


@pytest.mark.parametrize('step', ['begin', 'release'])
def test_no_look_misses_a_message_on_its_way(held, step, eager_switching):
    many = messages(3000)
    for message in many:
        held.add(message)
    moving = collections.deque(many[:1], maxlen=1)

    def run():
        for message in many:
            moving.append(message)
            getattr(held, step)(message)

    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive():
        message = moving[0]
        assert held.get(message.id) or held.was_seen(message.id)


def _is_forgotten(held, message_id):
    held.drained()
    return not held.was_seen(message_id)


# What senders have settled


def an_id(number, maker=b'maker--1'):
    return maker + number.to_bytes(8, 'big')


def release(held, *ids):
    for each in ids:
        held.release(Message(each))


def seen(held, *numbers):
    return [number for number in numbers if held.was_seen(an_id(number))]


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(helds, '_ON_ITS_WAY', 0.0)


@pytest.fixture
def clock(monkeypatch):
    """clock(seconds): time goes on."""
    now = [1000.0]
    monkeypatch.setattr(helds.time, 'monotonic', lambda: now[0])

    def go_on(seconds):
        now[0] += seconds
    return go_on


def run(held, clock, seconds):
    """As a poller that reads all there is, every half second."""
    for _ in range(int(2 * seconds)):
        clock(0.5)
        held.drained()


def test_what_its_sender_has_settled_is_forgotten(held, at_once):
    release(held, *map(an_id, (1, 2, 3)))
    held.settle(an_id(3))
    assert seen(held, 1, 2, 3) == [3]


def test_settled_is_not_forgotten_while_a_copy_may_be_on_its_way(clock):
    held = helds.Held(FOR_LONG)
    release(held, an_id(1))
    run(held, clock, 60)        # however long ago it was acknowledged
    held.settle(an_id(2))
    assert seen(held, 1)
    run(held, clock, helds._ON_ITS_WAY - 1)
    held.settle(an_id(3))
    assert seen(held, 1)
    run(held, clock, 2)
    held.settle(an_id(4))
    assert not seen(held, 1)


def test_copies_that_lie_unread_do_not_grow_old(clock):
    """Neither while the process is paused, nor while it is full."""
    held = helds.Held(ttl=30)
    release(held, an_id(1))
    run(held, clock, 1)
    held.settle(an_id(2))
    clock(1000)
    held.settle(an_id(3))
    held.drained()
    held.settle(an_id(4))
    assert seen(held, 1)


def test_steady_marks_are_taken_in_turn(clock):
    held = helds.Held(FOR_LONG)
    for number in range(1000):
        release(held, an_id(number))
        held.settle(an_id(number))
        run(held, clock, 0.5)
        assert len(held._seen) <= 2 * helds._ON_ITS_WAY + 4
        assert sum(map(len, held._marks.values())) <= helds._ON_ITS_WAY + 2
    assert len(held._seen) >= 2 * helds._ON_ITS_WAY


def test_others_settle_their_own(held, at_once):
    other = an_id(1, b'maker--2')
    release(held, other)
    held.settle(an_id(9))
    assert held.was_seen(other)
    held.settle(an_id(9, b'maker--2'))
    assert not held.was_seen(other)
    assert not held._by_maker and not held._marks


def test_settled_and_expired_leave_nothing(at_once):
    held = helds.Held(ttl=0.05)
    release(held, *map(an_id, range(20)))
    held.settle(an_id(5))
    waiting.until(lambda: _is_forgotten(held, an_id(19)))
    assert not held._seen and not held._by_maker and not held._marks
