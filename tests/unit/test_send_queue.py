# SPDX-License-Identifier: Apache-2.0
"""What waits for one instance, and what is asked about it."""

import itertools

import pytest

from tests.support import ids
from zmq_threaded import topic
from zmq_threaded import wire
from zmq_threaded.client import delivery
from zmq_threaded.client import send_queue
from zmq_threaded.registry import record

TOPIC = topic.rpc('exchange', 'topic')
INSTANCE = record.Instance(b'i' * 16, ('ipc:///nowhere',), '', True)


class Connection:
    """Notes which queues have work."""

    def __init__(self):
        self.ready = []

    def has_work(self, queue):
        self.ready.append(queue)


@pytest.fixture
def queue():
    return send_queue.SendQueue(INSTANCE, Connection())


def a_delivery(kind=wire.CAST):
    return delivery.Delivery(id=ids.new_id(), kind=kind, topic=TOPIC,
                             body=[b'', b''], flags=0,
                             expires=1e9, instance=INSTANCE)


def sent(queue, count, now=0.0):
    deliveries = [a_delivery() for _ in range(count)]
    for each in deliveries:
        queue.push(each)
        queue.head_was_sent(now)
    return deliveries


def asked(queue, now, connected_at=0.0, longest=1.0):
    """The ids of the QUERYs that are due."""
    messages = [wire.decode(frame) for frame
                in queue.questions(now, connected_at, longest)]
    assert all((each.kind, each.instance) == (wire.QUERY, INSTANCE.id)
               for each in messages)
    return [message_id for each in messages
            for message_id in wire.split_ids(each.body[0])]


def test_a_queue_with_work_tells_its_connection(queue):
    queue.push(a_delivery())
    assert queue.connection.ready == [queue]
    assert queue.may_send(0.0) and not queue.is_idle()


def test_what_was_sent_is_kept_until_it_is_taken_back(queue):
    first, second = sent(queue, 2)
    assert not queue.may_send(0.0)
    assert queue.take_back(first.id) is first
    assert queue.take_back(first.id) is None
    assert not queue.is_idle()
    assert queue.take_back(second.id) is second
    assert queue.is_idle()


def test_no_more_than_the_window_is_under_way(queue):
    deliveries = sent(queue, send_queue._WINDOW)
    queue.push(a_delivery())
    assert not queue.may_send(0.0)
    queue.take_back(deliveries[5].id)
    assert queue.may_send(0.0)


@pytest.mark.parametrize('order', list(itertools.permutations(range(3))))
def test_what_is_sent_again_takes_its_old_place(queue, order):
    deliveries = sent(queue, 5)
    queue.push(a_delivery())
    for place in order:
        queue.send_again(deliveries[place].id)
    assert list(queue.queue)[:3] == deliveries[:3]
    assert len(queue.queue) == 4


def test_sending_again_keeps_the_order_from_the_last_to_the_first(queue):
    first, second = sent(queue, 2)
    third = a_delivery()
    queue.push(third)
    queue.send_again(second.id)
    queue.send_again(first.id)
    assert list(queue.queue) == [first, second, third]
    assert not queue.in_flight and queue.connection.ready


def test_what_is_not_under_way_is_not_sent_again(queue):
    queue.send_again(b'x' * 16)
    assert not queue.queue and not queue.connection.ready


def test_a_busy_instance_gets_back_offs_that_double_to_a_second(queue):
    now, back_offs = 100.0, []
    for _ in range(7):
        one, = sent(queue, 1)
        queue.back_off(one.id, now)
        assert not queue.may_send(now)
        back_off = next(n / 100 for n in range(200)
                     if queue.may_send(now + n / 100))
        back_offs.append(back_off)
        now += 2.0
        queue.queue.clear()
    assert back_offs == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0],
                                   abs=0.011)


def test_refusals_of_one_burst_are_one_back_off(queue):
    burst = sent(queue, 3)
    for each in reversed(burst):
        queue.back_off(each.id, 100.0)
    assert list(queue.queue) == burst
    assert queue.may_send(100.06)


def test_an_instance_that_takes_messages_begins_with_the_first_back_off(queue):
    for now in (1.0, 2.0, 3.0, 4.0):
        one, = sent(queue, 1)
        queue.back_off(one.id, now)
    queue.is_taken()
    queue.back_off(b'x' * 16, 10.0)
    assert queue.may_send(10.06)


def test_young_messages_are_not_asked_about(queue):
    sent(queue, 1, now=10.0)
    assert asked(queue, 10.9) == []


def test_old_messages_are_asked_about_at_intervals_up_to_the_longest(queue):
    one, = sent(queue, 1, now=0.0)
    times = [number / 10 for number in range(11, 200)
             if asked(queue, number / 10, longest=4.0) == [one.id]]
    gaps = [round(after - before, 1) for before, after
            in zip(times, times[1:])]
    assert times[0] == 1.1
    assert gaps[:4] == [1.0, 2.0, 4.0, 4.0]


def test_what_went_over_an_earlier_connection_is_asked_about_at_once(queue):
    one, = sent(queue, 1, now=10.0)
    queue.connection_changed()
    assert asked(queue, 10.2, connected_at=10.1) == [one.id]


def test_a_new_connection_ends_the_interval_between_questions(queue):
    one, = sent(queue, 1, now=0.0)
    assert asked(queue, 2.0) == [one.id]
    assert asked(queue, 2.1) == []
    queue.connection_changed()
    assert asked(queue, 2.2) == [one.id]


def test_a_question_has_a_bounded_number_of_ids(queue):
    deliveries = sent(queue, 2500, now=0.0)
    questions = queue.questions(5.0, 0.0, 1.0)
    assert len(questions) == 3
    queue._ask_at = 0.0
    assert asked(queue, 5.0) == [each.id for each in deliveries]


def test_watched_calls_are_observed(queue):
    queue.watched[b'w' * 16] = object()
    assert not queue.is_idle()
    question, = queue.questions(1.0, 0.0, 1.0)
    assert wire.decode(question).flags & wire.OBSERVE
