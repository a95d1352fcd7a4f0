# SPDX-License-Identifier: Apache-2.0
import pytest

from tests.support import ids
from zmq_threaded import topic
from zmq_threaded import wire
from zmq_threaded.client import delivery
from zmq_threaded.client import in_doubt


@pytest.fixture
def unsettled():
    return in_doubt.InDoubt()


def deliveries(count, kind=wire.CAST):
    return [delivery.Delivery(
        kind=kind, topic=topic.rpc('exchange', 'topic'), body=[], flags=0,
        expires=0.0, id=ids.new_id()) for _ in range(count)]


def test_with_nothing_open_the_next_is_the_mark(unsettled):
    one, two = deliveries(2)
    assert unsettled.settled(one.id) == one.id
    unsettled.sent(one)
    unsettled.ended(one)
    assert unsettled.settled(two.id) == two.id


def test_the_oldest_that_is_open_is_the_mark(unsettled):
    many = deliveries(5)
    for each in reversed(many):
        unsettled.sent(each)
    for each, mark in zip(many, many[1:]):
        unsettled.ended(each)
        assert unsettled.settled(ids.new_id()) == mark.id


def test_one_that_is_sent_again_somewhere_else_stays_open(unsettled):
    one, two = deliveries(2)
    for _ in range(3):
        unsettled.sent(one)
    unsettled.ended(one)
    assert unsettled.settled(two.id) == two.id


def test_an_older_one_that_is_sent_for_the_first_time_is_no_mark(unsettled):
    waiting, sent = deliveries(2)
    unsettled.sent(sent)
    assert unsettled.settled(waiting.id) == waiting.id


def test_a_fanout_is_open_until_its_last_copy_has_ended(unsettled):
    original, later = deliveries(2, wire.FANOUT)
    copies = [original.copy_for(None) for _ in range(3)]
    for each in copies:
        unsettled.sent(each)
    for each in copies:
        assert unsettled.settled(later.id) == original.id
        unsettled.ended(each)
    assert unsettled.settled(later.id) == later.id


def test_calls_and_what_was_never_sent_do_not_count(unsettled):
    call, = deliveries(1, wire.CALL)
    never, later = deliveries(2)
    unsettled.sent(call)
    unsettled.ended(never)
    assert unsettled.settled(later.id) == later.id


def test_one_old_message_does_not_keep_all_later_ids(unsettled):
    old, = deliveries(1)
    unsettled.sent(old)
    for each in deliveries(20_000):
        unsettled.sent(each)
        unsettled.ended(each)
    assert len(unsettled) < 2000
    assert unsettled.settled(ids.new_id()) == old.id
