# SPDX-License-Identifier: Apache-2.0
import pytest

from tests.support import ids
from zmq_threaded import topic
from zmq_threaded import wire
from zmq_threaded.client import delivery
from zmq_threaded.client import in_doubt


@pytest.fixture
def doubt():
    return in_doubt.InDoubt(ids.new_id()[:8])


def deliveries(count, kind=wire.CAST):
    return [delivery.Delivery(
        kind=kind, topic=topic.rpc('exchange', 'topic'), body=[], flags=0,
        expires=0.0, id=ids.new_id()) for _ in range(count)]


def test_with_nothing_open_the_next_is_the_mark(doubt):
    one, two = deliveries(2)
    assert doubt.settled(one.id) == one.id
    doubt.sent(one)
    doubt.ended(one)
    assert doubt.settled(two.id) == two.id


def test_the_oldest_that_is_open_is_the_mark(doubt):
    many = deliveries(5)
    for each in reversed(many):
        doubt.sent(each)
    for each, mark in zip(many, many[1:]):
        doubt.ended(each)
        assert doubt.settled(ids.new_id()) == mark.id


def test_one_that_is_sent_again_somewhere_else_stays_open(doubt):
    one, two = deliveries(2)
    for _ in range(3):
        doubt.sent(one)
    doubt.ended(one)
    assert doubt.settled(two.id) == two.id


def test_an_older_one_that_is_sent_for_the_first_time_is_no_mark(doubt):
    waiting, sent = deliveries(2)
    doubt.sent(sent)
    assert doubt.settled(waiting.id) == waiting.id


def test_a_fanout_is_open_until_its_last_copy_has_ended(doubt):
    original, later = deliveries(2, wire.FANOUT)
    copies = [original.copy_for(None) for _ in range(3)]
    for each in copies:
        doubt.sent(each)
    for each in copies:
        assert doubt.settled(later.id) == original.id
        doubt.ended(each)
    assert doubt.settled(later.id) == later.id


def test_calls_and_what_was_never_sent_do_not_count(doubt):
    call, = deliveries(1, wire.CALL)
    never, later = deliveries(2)
    doubt.sent(call)
    doubt.ended(never)
    assert doubt.settled(later.id) == later.id


def test_one_old_message_does_not_keep_all_later_ids(doubt):
    old, = deliveries(1)
    doubt.sent(old)
    for each in deliveries(20_000):
        doubt.sent(each)
        doubt.ended(each)
    assert len(doubt) < 2000
    assert doubt.settled(ids.new_id()) == old.id
