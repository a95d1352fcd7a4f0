# SPDX-License-Identifier: Apache-2.0
"""Which messages a service holds, and which it has acknowledged lately."""

import collections
import dataclasses
import threading

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
    waiting.until(lambda: not held.was_seen(message.id))
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


# What senders have settled


def an_id(number, process=b'process1'):
    return process + number.to_bytes(8, 'big')


def test_what_its_sender_has_settled_is_forgotten_after_a_while(monkeypatch):
    monkeypatch.setattr(helds, '_ON_ITS_WAY', 0.0)
    held = helds.Held(ttl=300)
    for number in (1, 2, 3):
        held.release(Message(an_id(number)))
    held.settle(an_id(3))
    assert [held.was_seen(an_id(number)) for number in (1, 2, 3)] == [
        False, False, True]


def test_what_is_settled_is_remembered_while_a_copy_may_be_on_its_way():
    held = helds.Held(ttl=300)
    held.release(Message(an_id(1)))
    held.settle(an_id(2))
    assert held.was_seen(an_id(1))


def test_other_processes_settle_their_own(monkeypatch):
    monkeypatch.setattr(helds, '_ON_ITS_WAY', 0.0)
    held = helds.Held(ttl=300)
    held.release(Message(an_id(1, b'process2')))
    held.settle(an_id(9))
    held.settle(b'')
    assert held.was_seen(an_id(1, b'process2'))
    held.settle(an_id(9, b'process2'))
    assert not held.was_seen(an_id(1, b'process2'))
    assert not held._by_process


def test_settled_and_expired_leave_nothing(monkeypatch):
    monkeypatch.setattr(helds, '_ON_ITS_WAY', 0.0)
    held = helds.Held(ttl=0.05)
    for number in range(20):
        held.release(Message(an_id(number)))
    held.settle(an_id(5))
    waiting.until(lambda: not held.was_seen(an_id(19)))
    assert not held._seen and not held._by_process
